"""A kernel forked from a process that has made the notebooks' imports once: it starts in 1 s, a new Python in 11.

What a notebook does stays in its own process, as under Jupyter.  The imports compute nothing and touch no GPU, so that a fork of
them is safe.
"""

import os
from contextlib import suppress
from multiprocessing import get_context, parent_process
from threading import Thread

from ipykernel.kernelapp import IPKernelApp
from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

FORKS = get_context("forkserver")
IMPORTS = ["m2ib_lite.evaluate", "m2ib_lite.repro", "m2ib_lite.widgets", "seaborn"]  # where one fails, so does the notebook
FORKS.set_forkserver_preload(["joblib", "ipykernel.kernelapp", *IMPORTS])  # a fork of one of joblib's workers needs joblib


def end_with_its_owner():
    parent_process().join()
    os._exit(1)


def serve(arguments):
    """Be the kernel of these arguments of ipykernel, until it is shut down or the process that asked for it is gone."""
    Thread(target=end_with_its_owner, daemon=True).start()
    app = IPKernelApp.instance(parent_handle=0)  # ipykernel would watch the process that forked it, which lives on
    app.initialize(arguments)
    app.shell.enable_matplotlib("inline")  # ipykernel's own way comes too late for a matplotlib already imported
    app.start()


class Fork(LocalProvisioner):
    """jupyter_client's own, but for the process, which is a fork."""

    async def launch_kernel(self, cmd, **options):
        self.process = FORKS.Process(target=serve, args=(cmd[cmd.index("-f") :],))
        self.process.start()
        return self.connection_info

    async def poll(self):
        return self.process.exitcode if self.process else 0

    async def wait(self):
        self.process.join()
        self.process = None

    async def send_signal(self, signum):
        with suppress(ProcessLookupError):  # it may have ended in this moment
            os.kill(self.process.pid, signum)


class ForkedKernel(AsyncKernelManager):
    """For the kernel_manager_class of nbclient."""

    def __init__(self, **options):
        super().__init__(**options)
        self.provisioner = Fork(parent=self, kernel_spec=self.kernel_spec)
