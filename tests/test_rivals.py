import json
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from itertools import chain, combinations
from math import factorial
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from test_explain import left_as_it_was

from m2ib_lite import explain_words, load_model
from m2ib_lite.evaluate import METHODS, method_options
from m2ib_lite.rivals import RIVALS, enlarge
from m2ib_lite.side import Side, sides

FEW = dict(image_masks=70, text_masks=20)
QUICK = dict(explain=dict(steps=2, samples=2), kernelshap=dict(samples=2), rise=FEW, nib=dict(steps=3))


def ask(name, clip, images, captions=None, **options):
    """By its title or by its function's name."""
    method = RIVALS.get(name) or METHODS[name]
    return method(clip, images, captions, **{"progress": False, **QUICK.get(method.__name__, {}), **options})


def all_maps(a):
    """Those of images, then those of captions, which LeGrad has none of."""
    return [*a.image_maps, *(a.text_maps or [])]


def read_at(clip, ids, place):
    """The text tower's embedding of ids, read at a place whatever is there."""
    hidden = clip.text.embed(ids)
    for block in clip.text.blocks:
        hidden = block(hidden, None, is_causal=True)
    return F.normalize(clip.text.project(clip.text.model.final_layer_norm(hidden[:, place])), dim=-1)


class Toy:
    """A linear tower: y = sum of weights * hidden, so that each answer is known by hand."""

    blocks = range(3)

    def __init__(self, weights, table=None):
        self.weights, self.table = weights, table

    def embed(self, x):
        if self.table is not None:
            return self.table[x]
        patches = rearrange(x, "n c (gh ph) (gw pw) -> n (gh gw) (c ph pw)", gh=4, gw=4)
        return F.pad(patches, (0, 0, 1, 0))  # CLS

    def rest(self, hidden, layer, inputs):
        return (hidden * self.weights).sum(dim=(1, 2))[:, None]


def toy_side(tower, inputs, pooled):
    own = {"layer": (0, 0), "beta": (0.1, 0.1), "sigma2": (1.0, 1.0), "standardise": (False, False)}
    clip = SimpleNamespace(grid=(4, 4), blank=0, defaults=own, published=own, towers=(tower, tower), name="toy")
    content = torch.ones(1, tower.weights.shape[0], dtype=torch.bool)
    content[:, 0], content[:, pooled] = False, False
    modality = "image" if inputs.ndim == 4 else "text"
    valid, at = torch.ones_like(content), torch.tensor([pooled])
    return Side(clip, modality, tower, inputs, -1, tower.embed(inputs), content, valid, torch.ones(1, 1), at)


def linear_text():
    """BOS, four words, EOS; and what each word adds to y when it takes the blank's place."""
    draw = torch.Generator().manual_seed(0)
    tower = Toy(torch.randn(6, 3, generator=draw), torch.randn(9, 3, generator=draw))
    ids = torch.tensor([[1, 5, 8, 4, 6, 2]])
    return toy_side(tower, ids, 5), ((tower.table[ids[0]] - tower.table[0]) * tower.weights).sum(dim=1)[1:5]


def linear_image(kind=Toy):
    """4 x 4 patches of 2 x 2 pixels; and what each patch adds to y."""
    draw = torch.Generator().manual_seed(1)
    tower, pixels = kind(torch.randn(17, 12, generator=draw)), torch.randn(1, 3, 8, 8, generator=draw)
    side = toy_side(tower, pixels, 0)
    return side, (tower.embed(pixels)[0] * tower.weights).sum(dim=1)[1:]


def scores(name, side, **options):
    (found,) = RIVALS[name].scores(side, **options)
    return found


@pytest.mark.parametrize("make", [linear_text, linear_image])
def test_a_linear_tower_by_hand(make):
    """Saliency is the weights, NIB weight times state, KernelSHAP what each feature adds."""
    side, added = make()
    slopes = side.tower.weights.abs().sum(dim=1)[side.content[0]]
    states = (side.hidden[0] * side.tower.weights).sum(dim=1)[side.content[0]]
    torch.testing.assert_close(scores("saliency", side), slopes / 4 if side.is_image else slopes)
    for steps in (2, 7):
        torch.testing.assert_close(scores("nib", side, layer=0, steps=steps), states)
    torch.testing.assert_close(scores("kernelshap", side), added, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_rise_of_words_comes_to_the_mean_over_all_masks(p):
    side, added = linear_text()
    found = scores("rise", side, text_masks=40_000, p=p)
    none = side.keep(torch.zeros(1, 4))
    torch.testing.assert_close(found, none + (1 - p) * added + p * added.sum(), rtol=0, atol=0.08)


def test_rise_of_patches_finds_the_one_that_counts_and_its_size():
    tower = Toy(torch.zeros(17, 12))
    tower.weights[1 + 5] = 0.25  # patch (1, 1) of ones: y = 3 when it is kept
    found = scores("rise", toy_side(tower, torch.ones(1, 3, 8, 8), 0), image_masks=20_000, cells=4).reshape(4, 4)
    assert found.argmax() == 5
    torch.testing.assert_close(found[3], torch.full((4,), 1.5), rtol=0, atol=0.05)  # too far to share a cell: 3 p
    twice = replace(toy_side(tower, torch.ones(1, 3, 8, 8), 0), target=torch.full((1, 1), 2.0))
    torch.testing.assert_close(scores("rise", twice, image_masks=20_000, cells=4).reshape(4, 4), 2 * found)


def test_masks_are_smooth_fair_and_shifted():
    cells = (torch.rand(4000, 1, 4, 4, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    masks = enlarge(cells, torch.rand(4000, 2, generator=torch.Generator().manual_seed(1)), (8, 12))
    assert masks.shape == (4000, 1, 8, 12)
    assert masks.min() >= 0
    assert masks.max() <= 1
    torch.testing.assert_close(masks.mean(dim=0), torch.full((1, 8, 12), 0.3), rtol=0, atol=0.04)
    whole = F.interpolate(cells[:1], (10, 15), mode="bilinear")
    assert torch.equal(enlarge(cells[:1], torch.tensor([[0.0, 0.0]]), (8, 12)), whole[..., :8, :12])
    assert torch.equal(enlarge(cells[:1], torch.tensor([[0.99, 0.99]]), (8, 12)), whole[..., 2:, 3:])


def test_kernelshap_comes_to_the_shapley_values(clip, pairs):
    _, text, _ = sides(clip, [pairs[0].image], ["two mice and trees"])
    (one,) = text.singles()

    def worth(members):
        return one.keep(torch.tensor([[float(i in members) for i in range(4)]])).item()

    exact = torch.zeros(4)
    for i in range(4):
        others = [j for j in range(4) if j != i]
        for members in chain.from_iterable(combinations(others, size) for size in range(4)):
            weight = factorial(len(members)) * factorial(3 - len(members)) / factorial(4)
            exact[i] += weight * (worth((*members, i)) - worth(members))
    found = scores("kernelshap", text, samples=400)
    torch.testing.assert_close(found, exact, rtol=0, atol=0.1 * exact.abs().max().item())


def test_a_single_word_gets_all_that_it_adds(clip, pairs):
    _, text, _ = sides(clip, [pairs[0].image], ["owl"])
    (one,) = text.singles()
    torch.testing.assert_close(scores("kernelshap", text), one.keep(torch.ones(1, 1)) - one.keep(torch.zeros(1, 1)))


def test_nib_agrees_with_a_plain_loop(clip, pairs):
    images, captions = [pair.image for pair in pairs[:2]], [pairs[0].caption, "an owl"]
    for side, layer in zip(sides(clip, images, captions)[:2], (3, 2), strict=True):
        hidden, slopes = side.enter(layer), 0
        for i in (1, 2, 3, 4):
            point = (hidden * i / 4).requires_grad_()
            slopes = slopes + torch.autograd.grad(side.score(point, layer - 1).sum(), point)[0] / 4
        found, expected = RIVALS["nib"].scores(side, layer=(3, 2), steps=4), side.pick((hidden * slopes).sum(-1))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def opened(clip, pair):
    """One pair's cosine, and what the parts of each block gave in the model's own eager pass, counted from the last."""
    model, seen = deepcopy(clip.model).requires_grad_(True), {"image": {}, "text": {}}  # so that there is a graph
    model.set_attn_implementation("eager")

    def store(tower, depth, name):
        return lambda _, inputs, output: seen[tower].update({(depth, name): inputs[0] if name == "o" else output})

    for tower, blocks in (("image", model.vision_model.encoder.layers), ("text", model.text_model.encoder.layers)):
        for depth, block in enumerate(reversed(blocks)):
            attend = block.self_attn
            parts = dict(
                norm=block.layer_norm1, attention=attend, q=attend.q_proj, k=attend.k_proj, v=attend.v_proj, o=attend.out_proj
            )
            for name, module in parts.items():
                module.register_forward_hook(store(tower, depth, name))
    out = model(clip.tokens([pair.caption]).ids, clip.pixels([pair.image]))
    return (out.image_embeds * out.text_embeds).sum(), seen


def plain_gradcam(y, seen, places, pooled, block=-1):
    states = seen[-1 - block, "norm"][0, places]
    (slopes,) = torch.autograd.grad(y, seen[-1 - block, "norm"], retain_graph=True)
    return (states @ slopes[0, places].mean(dim=0)).clamp(min=0)


def plain_chefer(y, seen, places, pooled, blocks):
    relevance = torch.eye(seen[0, "attention"][1].shape[-1])
    for depth in reversed(range(blocks)):
        attention = seen[depth, "attention"][1]
        (slopes,) = torch.autograd.grad(y, attention, retain_graph=True)
        relevance = relevance + (attention * slopes)[0].clamp(min=0).mean(dim=0) @ relevance
    return relevance[pooled, places]


def plain_gradeclip(y, seen, places, pooled, block=-1):
    q, k, v, o = (seen[-1 - block, part] for part in "qkvo")
    (slopes,) = torch.autograd.grad(y, o, retain_graph=True)
    near = torch.stack([F.cosine_similarity(q[0, pooled], k[0, i], dim=0) for i in places])
    near = (near - near.min()) / (near.max() - near.min())
    return ((v[0, places] @ slopes[0, pooled]) * near).clamp(min=0)


PLAIN = [(plain, options) for plain in (plain_gradcam, plain_gradeclip) for options in (dict(block=-1), dict(block=-2))]
PLAIN += [(plain_chefer, dict(blocks=1)), (plain_chefer, dict(blocks=3))]


@pytest.mark.parametrize(("plain", "options"), PLAIN)
def test_it_agrees_with_the_whole_models_own_pass(clip, pairs, plain, options):
    y, seen = opened(clip, pairs[0])
    a = ask(plain.__name__.removeprefix("plain_"), clip, pairs[:1], **options)
    n = len(a.text_maps[0])
    towers = {"image": (a.image_maps[0].flatten(), range(1, 50), 0), "text": (a.text_maps[0], range(1, n + 1), n + 1)}
    for tower, (found, places, pooled) in towers.items():
        expected = plain(y, seen[tower], list(places), pooled, **options).detach()
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * expected.abs().max().item())


@pytest.mark.parametrize("blocks", [1, 2, 6])
def test_legrad_agrees_with_its_formula_on_the_whole_models_own_pass(clip, pairs, blocks):
    model, said = deepcopy(clip.model).requires_grad_(True), clip.text.encode(clip.tokens([pairs[0].caption]).ids)
    model.set_attn_implementation("eager")
    out = model.vision_model(clip.pixels([pairs[0].image]), output_attentions=True, output_hidden_states=True)
    total = 0
    for states, attention in list(zip(out.hidden_states[1:], out.attentions, strict=True))[-blocks:]:
        e = model.visual_projection(model.vision_model.post_layernorm(states.mean(dim=1)))
        (slopes,) = torch.autograd.grad(F.cosine_similarity(e, said).sum(), attention, retain_graph=True)
        total = total + slopes[0].clamp(min=0).mean(dim=(0, 1))[1:]
    found = ask("legrad", clip, pairs[:1], blocks=blocks)
    expected = (total - total.min()) / (total.max() - total.min())
    torch.testing.assert_close(found.image_maps[0].flatten(), expected, rtol=1e-3, atol=1e-4)
    assert found.text_maps is None
    with pytest.raises(ValueError, match="LeGrad has no maps of words: give modality='image'"):
        ask("legrad", clip, pairs[:1], modality="text")


def test_legrad_of_one_head_by_hand():
    """y is the sum of x_t + sum_j A_tj x_j, so dy/dA_tj is x_j for each row t: 2, 6 and, below 0, -3 of three patches."""
    tower = Toy(torch.ones(4, 1), torch.tensor([[9.0], [2.0], [6.0], [-3.0]]))
    tower.blocks, tower.norms, tower.reader = range(1), [torch.clone], 0
    tower.run = lambda hidden, blocks: hidden
    tower.attention = lambda normed, layer: (normed[:, None], torch.full((1, 1, 4, 4), 0.25))
    tower.finish = lambda hidden, mixed, layer: hidden + mixed[:, 0]
    found = scores("legrad", toy_side(tower, torch.tensor([[0, 1, 2, 3]]), 0), blocks=1)
    torch.testing.assert_close(found, torch.tensor([1 / 3, 1, 0]))


def test_options_are_those_given_for_a_tower_then_the_models_own_then_the_published(folder, pairs):
    own = {"M2IB": {"layer": [0, 0], "beta": [1.0, 2.0]}, "gradcam": {"block": [-1, -3]}, "legrad": {"blocks": [1, 1]}}
    plain = load_model(str(folder), device="cpu")
    (folder / "settings.json").write_text(json.dumps({"best": own, "best for words": {"gradcam": {"block": [-2, -2]}}}))
    clip = load_model(str(folder), device="cpu")
    assert (clip.own("best for words", "gradcam"), clip.own("best", "rise")) == ({"block": (-2, -2)}, {})
    assert clip.own("a section that it lacks", "legrad") == {"blocks": (1, 1)}
    published = {name: method_options(clip, "published", 0)[name] for name in ("M2IB", "Grad-CAM", "LeGrad")}
    assert published["Grad-CAM"] == {"block": -1}
    for name, options in zip(published, own.values(), strict=True):
        best, given, as_published = (ask(name, clip, pairs[:1], **o) for o in ({}, options, published[name]))
        of_plain = ask(name, plain, pairs[:1])
        for ours, theirs in ((best, given), (as_published, of_plain)):
            torch.testing.assert_close(all_maps(ours), all_maps(theirs))
        assert not torch.allclose(all_maps(best)[-1], all_maps(of_plain)[-1])
    image, text = (ask("gradcam", plain, pairs[:1], block=block, modality=of) for block, of in ((-1, "image"), (-3, "text")))
    torch.testing.assert_close(all_maps(ask("gradcam", clip, pairs[:1])), [*image.image_maps, *text.text_maps])
    of_words, given = (explain_words(clip, pairs[0], method="gradcam", **o) for o in ({}, dict(block=-2)))
    torch.testing.assert_close(of_words.maps.image_maps, given.maps.image_maps)


def test_gradeclip_of_a_single_word_is_not_lost_in_the_scaling(clip, pairs):
    _, text, _ = sides(clip, [pair.image for pair in pairs], ["owl"] * 5)
    for found, mirrored in zip(*(RIVALS["gradeclip"].scores(s) for s in (text, replace(text, target=-text.target))), strict=True):
        assert (found > 0) != (mirrored > 0)


@pytest.mark.parametrize("name", ["kernelshap", "rise", "random"])
def test_another_seed_or_pair_gives_another_map(tiny, pairs, name):
    base, other = ask(name, tiny, pairs), ask(name, tiny, pairs, seed=1)
    assert not torch.allclose(base.image_maps[0], other.image_maps[0])
    assert not torch.allclose(base.text_maps[0], other.text_maps[0])
    assert not torch.allclose(base.image_maps[0], base.image_maps[1])
    if name == "random":  # which fills [0, 1)
        assert 0 <= base.image_maps.min() < 0.1 < 0.9 < base.image_maps.max() < 1


@pytest.mark.parametrize("name", RIVALS)
@pytest.mark.parametrize("error", [None, KeyboardInterrupt])
def test_the_model_and_the_global_generator_come_back_as_they_were(tiny, pairs, name, error, monkeypatch):
    tiny.model.train()
    tiny.model.visual_projection.requires_grad_(True)
    fails = error and name != "random"  # which never runs a tower
    with left_as_it_was(tiny.model), pytest.raises(error) if fails else nullcontext():
        if fails:
            tower = tiny.image if name == "legrad" else tiny.text
            monkeypatch.setattr(tower, "rest", lambda *_: (_ for _ in ()).throw(error("stop")))
        ask(name, tiny, pairs[:2])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("saliency", dict(batch_size=0), "batch_size is 0: give a number above zero"),
        ("chefer", dict(blocks=0), "blocks is 0: give 1 to 2"),
        ("nib", dict(layer=(0, 2)), "text layer 2 is out of range: .* takes 0 to 1"),
        ("nib", dict(steps=0), "steps is 0: give at least 2"),
        ("rise", dict(p=0), "p is 0"),
        ("gradcam", dict(block=-3), "block is -3: give -1, the last, to -2"),
        ("gradeclip", dict(block=(-1, 0)), "block is 0: give -1, the last, to -3"),
        ("chefer", dict(block=1, stps=2), "Chefer et al. has no option block, stps: there are blocks"),
        ("saliency", dict(block=1), "Saliency has no option block: there are none"),
    ],
)
def test_bad_options_are_refused_by_name(tiny, pairs, name, options, message):
    with pytest.raises(TypeError if "no option" in message else ValueError, match=message):
        ask(name, tiny, pairs[:1], **options)


def test_masked_inputs_run_in_bfloat16_only_where_the_device_has_it(clip, pairs, monkeypatch):
    kinds = []

    def rest(tower, hidden, layer, inputs):
        kinds.append(torch.mm(torch.ones(1, 1), torch.ones(1, 1)).dtype)
        return hidden[:, 0]

    monkeypatch.setattr(type(clip.image), "rest", rest)
    image, _, _ = sides(clip, [pairs[0].image], [pairs[0].caption])
    for has in (True, False):
        monkeypatch.setattr("m2ib_lite.side.has_bfloat16", lambda device, has=has: has)
        image.keep(torch.ones(1, 49))
    assert kinds == [torch.bfloat16, torch.float32]


def test_rise_adds_up_in_float32_whatever_autocast_says(tiny, pairs):
    plain = ask("rise", tiny, pairs[:1], image_masks=500, text_masks=500)
    with torch.autocast("cpu", torch.bfloat16):
        automatic = ask("rise", tiny, pairs[:1], image_masks=500, text_masks=500)
    for a, b in zip(all_maps(automatic), all_maps(plain), strict=True):
        assert torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] > 0.999
