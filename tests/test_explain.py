from contextlib import contextmanager, nullcontext
from copy import deepcopy
from importlib import import_module

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from m2ib_lite import explain, load_model
from m2ib_lite.bottleneck import capacity, inject
from m2ib_lite.explain import QUALITIES, noise_source
from m2ib_lite.hooks import capture, replace
from m2ib_lite.rivals import RIVALS

QUICK = dict(steps=3, samples=4, progress=False)


def ask(clip, pairs, **options):
    return explain(clip, [pair.image for pair in pairs], [pair.caption for pair in pairs], **{**QUICK, **options})


def close(a, i, b, j, tolerance=1e-5):
    for ours, theirs in ((a.image_maps[i], b.image_maps[j]), (a.text_maps[i], b.text_maps[j])):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


def test_a_pair_of_values_serves_image_and_text(clip, pairs):
    one = ask(clip, pairs[:1], beta=0.3, sigma2=(1.0, 2.0), layer=(2, np.int64(1)))
    close(one, 0, ask(clip, pairs[:1], beta=(0.3, 0.3), sigma2=(1.0, 2.0), layer=(2, 1)), 0)
    other = ask(clip, pairs[:1], beta=(0.3, 0.7), sigma2=(1.0, 2.0), layer=(2, 1))
    assert torch.equal(one.image_maps, other.image_maps)
    assert not torch.equal(one.text_maps[0], other.text_maps[0])
    mixed, whole = (ask(clip, pairs[:1], standardise=of) for of in ((True, False), True))
    assert torch.equal(mixed.image_maps, whole.image_maps)
    assert not torch.equal(mixed.text_maps[0], whole.text_maps[0])


def test_one_image_many_images_paths_and_arrays_are_the_same(clip, pairs, tmp_path):
    image, caption = pairs[0].image, pairs[0].caption
    image.save(tmp_path / "scene.png")
    tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    first = explain(clip, image, caption, **QUICK)
    paths, arrays = [tmp_path / "scene.png", [str(tmp_path / "scene.png")]], [np.asarray(image), [np.asarray(image)]]
    for images in ([image], *paths, *arrays, tensor, tensor[None]):
        close(first, 0, explain(clip, images, caption, **QUICK), 0, tolerance=0)


def test_one_of_either_serves_all_of_the_other_and_pairs_bring_their_captions(clip, pairs):
    images, captions = [pair.image for pair in pairs[:2]], [pair.caption for pair in pairs[:2]]
    together = ask(clip, pairs[:2])
    for i in range(2):
        close(explain(clip, images[i], captions, **QUICK), i, together, i)
        close(explain(clip, images, captions[i], **QUICK), i, together, i)
        close(explain(clip, pairs[:2], **QUICK), i, together, i)
        close(explain(clip, pairs[i], **QUICK), 0, together, i)
        close(explain(clip, pairs[i], captions, **QUICK), i, together, i)
    with pytest.raises(ValueError, match="2 images and 1 captions"):
        explain(clip, images, captions[:1], **QUICK)
    with pytest.raises(ValueError, match="0 images and 0 captions"):
        explain(clip, [], [], **QUICK)
    with pytest.raises(ValueError, match="images without captions: give one for each, or Pairs"):
        RIVALS["saliency"](clip, images)


def naive_maps(block, x, features, target, beta, sigma2, steps, samples, seed, lr=1.0, standardise=False):
    """The published procedure in its plainest form: transformers' own whole pass, a hook that adds the noise."""
    with torch.no_grad(), capture(block) as hidden:
        features(x)
    R, mean, spread = hidden[0], torch.tensor(0.0), torch.tensor(1.0)
    if standardise:
        mean, spread = R.mean(dim=1, keepdim=True), R.std(dim=1, keepdim=True, correction=0)
        R = (R - mean) / spread
    alpha = torch.full_like(R, 5.0, requires_grad=True)
    adam = torch.optim.Adam([alpha], lr=lr)
    draw = noise_source(seed, x, torch.ones(R.shape[:2], dtype=torch.bool), R.shape[2], samples)
    for _ in range(steps):
        noise = draw()
        with replace(block, lambda _, noise=noise: inject(R, alpha, noise, sigma2)[:, 0] * spread + mean):
            found = features(x.repeat(samples, *[1] * (x.ndim - 1))).pooler_output
        loss = beta * capacity(R, alpha, sigma2).mean() - F.cosine_similarity(found, target).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return capacity(R, alpha, sigma2).sum(-1)[0].detach()


@pytest.mark.parametrize("layer", [-1, 2])
@pytest.mark.parametrize("standardise", [False, True])
def test_it_agrees_with_the_plain_procedure_on_the_whole_model(clip, pairs, layer, standardise):
    options = dict(standardise=standardise, beta=0.4, sigma2=0.8, steps=5, samples=4, lr=0.7, seed=9)
    ours, vision = ask(clip, pairs[:1], layer=layer, **options).image_maps[0], clip.model.vision_model
    said = clip.model.get_text_features(clip.tokens([pairs[0].caption]).ids).pooler_output
    block = vision.encoder.layers[layer] if layer >= 0 else vision.pre_layrnorm
    plain = naive_maps(block, clip.pixels([pairs[0].image]), clip.model.get_image_features, said, **options)
    torch.testing.assert_close(ours.flatten(), plain[1:], rtol=1e-4, atol=1e-4)


def test_a_result_depends_on_the_pair_the_options_and_the_seed_alone(clip, pairs):
    together = ask(clip, pairs, batch_size=5)
    reversed_order = ask(clip, pairs[::-1], batch_size=5)
    in_twos = ask(clip, pairs, batch_size=2)
    torch.manual_seed(12345)
    for i in range(5):
        close(together, i, ask(clip, pairs[i : i + 1]), 0)
        close(together, i, reversed_order, 4 - i)
        close(together, i, in_twos, i)


def test_another_seed_or_option_gives_another_map(clip, pairs):
    base = ask(clip, pairs[:1]).image_maps
    for change in (dict(seed=1), dict(beta=2.0), dict(sigma2=0.3), dict(layer=1), dict(steps=4), dict(samples=5), dict(lr=0.5)):
        assert not torch.allclose(base, ask(clip, pairs[:1], **change).image_maps)


def state(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    hooks = [dict(getattr(m, kind)) for m in model.modules() for kind in kinds]
    weights = [(p.detach().clone(), p.grad, p.requires_grad) for p in model.parameters()]
    return hooks, [m.training for m in model.modules()], weights


@contextmanager
def left_as_it_was(model):
    """The block changes no hook, training flag, weight, gradient or `requires_grad`, nor the global generator."""
    (hooks, training, weights), drawn = state(model), torch.get_rng_state()
    yield
    now = state(model)
    assert now[:2] == (hooks, training)
    assert torch.equal(torch.get_rng_state(), drawn)
    for (weight, grad, learns), (before, grad_before, learned) in zip(now[2], weights, strict=True):
        assert torch.equal(weight, before)
        assert grad is grad_before is None
        assert learns == learned


@pytest.mark.parametrize("error", [None, RuntimeError, KeyboardInterrupt])
def test_the_model_comes_back_bit_for_bit(tiny, pairs, error, monkeypatch):
    rest, calls = tiny.text.rest, iter(range(10))
    tiny.model.train()
    tiny.model.visual_projection.requires_grad_(True)

    def fail_late(*inputs):
        if error and next(calls) == 2:
            raise error("stop")
        return rest(*inputs)

    monkeypatch.setattr(tiny.text, "rest", fail_late)
    with left_as_it_was(tiny.model), pytest.raises(error) if error else nullcontext():
        ask(tiny, pairs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_almost_the_same_maps(clip, pairs, dtype):
    whole = ask(clip, pairs[:2])
    half = ask(load_model("testbed", "cpu", dtype), pairs[:2])
    with torch.autocast("cpu", dtype=dtype):
        automatic = ask(clip, pairs[:2])
    for a in (half, automatic):
        assert a.image_maps.dtype == torch.float32
        for ours, theirs in ((a.image_maps, whole.image_maps), *zip(a.text_maps, whole.text_maps, strict=True)):
            assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(layer=5), "image layer 5 is out of range: testbed takes -1 to 4"),
        (dict(layer=(0, 3)), "text layer 3 is out of range: testbed takes -1 to 2"),
        (dict(layer=(1, 1, 1)), "layer is .* give one value, or a pair"),
        (dict(sigma2=(1, -1)), "sigma2 is -1: give a number above zero"),
        (dict(beta=(0.1, float("nan"))), "beta is nan: give a number above zero"),
        (dict(lr=float("inf")), "lr is inf"),
        (dict(beta="0.1"), "beta is 0.1: give a number"),
        (dict(steps=2.5), "steps is 2.5: give a whole number"),
        (dict(layer=-2), "image layer -2 is out of range"),
        (dict(beta=0), "beta is 0: give a number above zero"),
        (dict(samples=0), "samples is 0"),
        (dict(quality="best"), "quality is 'best': give one of fast, published, converged"),
    ],
)
def test_bad_options_are_refused_by_name(clip, pairs, options, message):
    with pytest.raises(ValueError, match=message):
        ask(clip, pairs[:1], **options)


def test_a_special_token_in_a_caption_is_text(clip, pairs):
    with pytest.warns(UserWarning, match="does not know"):
        a = explain(clip, [pairs[0].image] * 2, ["an owl <eos> and a cat", "a cat"], **QUICK)
    assert a.tokens[0] == ["an", "owl", "<", "eos", ">", "and", "a", "cat"]


def test_the_options_of_a_tower_that_is_not_asked_for_are_not_checked(clip, pairs):
    assert len(ask(clip, pairs[:1], layer=4, modality="image")) == 1  # the text tower's last is 2
    with pytest.raises(ValueError, match="image layer 5"):
        ask(clip, pairs[:1], layer=5, modality="image")
    with pytest.raises(ValueError, match="text layer 4 is out of range: testbed takes -1 to 2"):
        ask(clip, pairs[:1], layer=4, modality="text")
    assert RIVALS["nib"](clip, pairs[:1], layer=4, modality="image").text_maps is None


def test_an_attribution_shows_no_tensor_and_gives_its_pairs_one_by_one(clip, pairs):
    a = ask(clip, pairs[:3])
    tokens = sum(map(len, a.tokens))
    assert repr(a) == f"<Attribution of 3 pairs by M2IB, in nats: image maps of 7 x 7 patches, text maps of {tokens} tokens>"
    assert repr(ask(clip, pairs[:1], modality="image")).endswith("image maps of 7 x 7 patches, no text maps>")
    assert [len(part) for part in (a[1], a[-1], a[1:], a[::2])] == [1, 1, 2, 2]
    assert [one.captions for one in a] == [[pair.caption] for pair in pairs[:3]]
    close(a[1], 0, a, 1, tolerance=0)
    assert np.array_equal(a[2].heat(0), a.heat(2))
    assert a[-1].tokens[0] == a.tokens[2]
    for i in (3, -4):
        with pytest.raises(IndexError, match=f"no pair {i}: give 0 to 2"):
            a[i]


def test_an_embedding_that_is_not_finite_is_refused(clip, pairs):
    broken = deepcopy(clip)
    broken.model.visual_projection.weight[0, 0] = float("inf")
    with pytest.raises(ValueError, match="embedding is not finite"):
        ask(broken, pairs[:1])


def test_heat_covers_what_the_model_saw(clip):
    wide = Image.new("RGB", (336, 112))
    a = explain(clip, wide, "an owl", **QUICK)
    a.image_maps = torch.arange(49.0).reshape(1, 7, 7) + 1
    heat = a.heat(0)
    assert heat.shape == (112, 336)
    assert not heat[:, :112].any()
    assert not heat[:, 224:].any()
    centres = heat[8::16, 120:224:16]
    assert np.allclose(centres, np.arange(49).reshape(7, 7) + 1, atol=0.6)
    assert (heat[:, 112:224] >= 1).all()


def test_long_work_shows_a_bar_and_short_or_quiet_work_none(clip, pairs, capsys, monkeypatch):
    module = import_module("m2ib_lite.side")
    monkeypatch.setattr(module, "BAR_DELAY", 600)
    ask(clip, pairs[:1], progress=True)
    assert not capsys.readouterr().err
    monkeypatch.setattr(module, "BAR_DELAY", 0)
    ask(clip, pairs[:2], progress=True, batch_size=1)
    assert "2/2" in capsys.readouterr().err
    ask(clip, pairs[:2], progress=False)
    assert not capsys.readouterr().err


@pytest.mark.parametrize("method", [explain, RIVALS["gradcam"]])
def test_one_modality_alone_gives_the_same_maps(clip, pairs, method):
    quick = dict(steps=2, samples=2) if method is explain else {}
    whole, image, text = (method(clip, pairs, modality=m, progress=False, **quick) for m in ("both", "image", "text"))
    assert torch.equal(image.image_maps, whole.image_maps)
    assert image.text_maps is None
    assert all(torch.equal(a, b) for a, b in zip(text.text_maps, whole.text_maps, strict=True))
    assert text.image_maps is None
    with pytest.raises(ValueError, match="modality is 'images'"):
        method(clip, pairs, modality="images")


def test_antithetic_noise_comes_in_twos_of_opposite_sign(clip, pairs):
    inputs, valid = torch.arange(1, 7).reshape(2, 3), torch.tensor([[True, True, True], [True, True, False]])
    plain, twice = noise_source(0, inputs, valid, 4, 2)(), noise_source(0, inputs, valid, 4, 4, antithetic=True)()
    assert torch.equal(twice[:2], plain)
    assert torch.equal(twice[2:], -plain)
    assert not torch.allclose(ask(clip, pairs[:1]).image_maps, ask(clip, pairs[:1], antithetic=True).image_maps)
    with pytest.raises(TypeError, match="M2IB has no option betta, first: help"):
        ask(clip, pairs[:1], betta=1, first=0)
    with pytest.raises(ValueError, match="samples is 3: antithetic noise comes in twos"):
        ask(clip, pairs[:1], samples=3, antithetic=True)


def test_a_quality_is_its_steps_samples_and_noise_and_what_is_given_replaces_them(clip, pairs):
    assert QUALITIES["published"] == dict(steps=10, samples=10, antithetic=False)  # the paper's
    fast = ask(clip, pairs[:2], steps=None, samples=None, quality="fast")
    given = ask(clip, pairs[:2], steps=10, samples=4, antithetic=True)
    shorter = ask(clip, pairs[:2], steps=3, samples=None, quality="fast")
    assert fast.image_maps.equal(given.image_maps)
    assert shorter.image_maps.equal(ask(clip, pairs[:2], steps=3, samples=4, antithetic=True).image_maps)


def test_images_are_opened_when_they_are_asked_for(clip, pairs, tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, pair in zip(paths, pairs, strict=False):
        pair.image.save(path)
    a = explain(clip, paths, [pair.caption for pair in pairs[:3]], **QUICK)
    pairs[0].image.resize((112, 112)).save(paths[1])
    assert a.images[1].size == (112, 112)
    (tmp_path / "2.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"2\.png"):
        explain(clip, paths, [pair.caption for pair in pairs[:3]], **QUICK)
