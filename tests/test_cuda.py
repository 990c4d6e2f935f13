"""The same answers on CUDA as on the CPU; all are skipped where there is no CUDA, as in CI."""

import sys

import pytest
import torch
from run import run_notebook
from test_rivals import all_maps
from test_run import write

from m2ib_lite import explain, load_model
from m2ib_lite.evaluate import confidence, roar
from m2ib_lite.metrics import rank_correlation
from m2ib_lite.rivals import RIVALS
from m2ib_lite.runs import evaluate_data

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA here")
NOT_ENOUGH = 400e6  # bytes; M2IB of 64 scenes takes gigabytes
DRAWN_THERE = ("rise", "random")  # by the device's own generators, which differ from the CPU's


@pytest.fixture(scope="module")
def there():
    return load_model("testbed", device="cuda")


def least_agreement(a, b):
    """The lowest Spearman of a pair's two maps, over both modalities."""
    maps = zip(all_maps(a), all_maps(b), strict=True)
    return min(rank_correlation(*(x.flatten().cpu() for x in two)) for two in maps)


def test_m2ib_finds_the_same_with_the_same_noise(clip, there, pairs, monkeypatch):
    module = sys.modules["m2ib_lite.explain"]
    drawn_on_cpu = module.noise_source

    def noise_source(seed, inputs, *rest):
        draw = drawn_on_cpu(seed, inputs.cpu(), *rest)
        return lambda: draw().to(inputs.device)

    monkeypatch.setattr(module, "noise_source", noise_source)
    one, other = (explain(model, pairs, progress=False) for model in (clip, there))
    assert other.image_maps.device.type == other.text_maps[0].device.type == "cuda"
    assert least_agreement(one, other) > 0.99


def test_m2ib_is_the_same_alone_in_a_batch_and_again(there, pairs):
    batch, again = (explain(there, pairs, progress=False) for _ in range(2))
    alone = explain(there, pairs[1], progress=False)
    assert least_agreement(batch, again) > 0.999
    for one, other in ((alone.image_maps[0], batch.image_maps[1]), (alone.text_maps[0], batch.text_maps[1])):
        torch.testing.assert_close(one, other, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("name", RIVALS)
def test_every_rival_runs_and_those_without_own_draws_agree(clip, there, pairs, name):
    found = RIVALS[name](there, pairs, progress=False)
    assert {x.device.type for x in all_maps(found)} == {"cuda"}
    if name in DRAWN_THERE:
        return
    here = RIVALS[name](clip, pairs, progress=False)
    if name == "kernelshap":  # in bfloat16 there, and here where the processor has it
        assert least_agreement(here, found) > 0.95
    else:
        for one, other in zip(all_maps(here), all_maps(found), strict=True):
            torch.testing.assert_close(other.cpu(), one, rtol=1e-2, atol=1e-3 * one.abs().max().item())


def test_maps_are_worth_the_same(clip, there, pairs):
    def values(model):
        maps = RIVALS["chefer"](model, pairs, progress=False)
        return [*confidence(model, maps, pairs)["value"], *roar(model, [maps], seeds=1, progress=False)["value"]]

    assert values(there) == pytest.approx(values(clip), rel=0.02, abs=0.02)


def test_out_of_gpu_memory_halves_the_batch(tmp_path):
    def run(out, batch_size):
        summary, bad = evaluate_data("testbed", "scenes", tmp_path / out, count=64, device="cuda", batch_size=batch_size)
        assert bad.empty
        return summary["mean"].to_numpy()

    in_eights = run("eights", 8)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(NOT_ENOUGH / torch.cuda.mem_get_info()[1])
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(int(2 * NOT_ENOUGH), dtype=torch.uint8, device="cuda")
        torch.testing.assert_close(run("sixty_four", 64), in_eights, rtol=0.05, atol=0.05)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_forked_kernel_has_the_gpu(tmp_path):
    write(tmp_path, "00_x", 'OUT = ""', "import torch", 'assert torch.ones(2, device="cuda").sum() == 2')
    run_notebook(tmp_path / "00_x.ipynb", {}, tmp_path / "out")
