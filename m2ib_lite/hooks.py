"""Watch or change a module's output, or freeze a model, inside a `with`; whatever happens there is undone."""

from contextlib import contextmanager


@contextmanager
def replace(module, change):
    """Put change(output), unless it is None, in the place of the module's output.  RuntimeError where nothing called the module."""
    fired = []

    def hook(_, inputs, output):
        fired.append(True)
        return change(output)

    with module.register_forward_hook(hook):  # torch takes it off again at the end, whatever happens
        yield
    if not fired:
        raise RuntimeError(f"the hook on {type(module).__name__} never fired: the forward pass did not reach that module")


@contextmanager
def capture(module):
    """Collect what the module gives, a list that grows by one output a call."""
    outputs = []
    with replace(module, outputs.append):
        yield outputs


@contextmanager
def frozen(model):
    """Evaluation mode and no gradient to any weight; each module's training flag and each weight's own flag come back."""
    training = [(module, module.training) for module in model.modules()]
    learning = [(weight, weight.requires_grad) for weight in model.parameters()]
    try:
        model.eval().requires_grad_(False)
        yield model
    finally:
        for module, flag in training:
            module.training = flag
        for weight, flag in learning:
            weight.requires_grad_(flag)
