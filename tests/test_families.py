"""M2IB, every rival and every evaluation on each family of models."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from families import GRIDS, clip_folder, gemma_like, openai_bpe, openai_model, sentencepieces, siglip_folder
from PIL import Image
from test_explain import naive_maps
from test_rivals import all_maps, ask
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from m2ib_lite import load_model
from m2ib_lite.evaluate import METHODS, cascade, confidence, follow, localisation, roar
from m2ib_lite.evaluate.sanity import stages
from m2ib_lite.hooks import capture
from m2ib_lite.rivals import RIVALS
from m2ib_lite.side import sides

pytestmark = pytest.mark.filterwarnings("ignore:caption .* the tokenizer")  # of the small vocabularies
CAPTIONS = ["two owls", "A photo of three CATS, a dog and a violin", "mice"]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A small model of each family, made once."""
    made = {}

    def make(name):
        folder = tmp_path_factory.mktemp("family")
        if name in GRIDS:
            return load_model(clip_folder(folder, name), device="cpu")
        if name == "openai":
            torch.save(openai_model(layers=(3, 3)).state_dict(), folder / "weights.pt")
            return load_model(folder / "weights.pt", device="cpu", tokenizer=openai_bpe())
        return load_model(siglip_folder(folder, sentencepieces if name == "siglip" else gemma_like), device="cpu")

    return lambda name: made[name] if name in made else made.setdefault(name, make(name))


@pytest.fixture(params=["B/32", "siglip", "siglip2", "openai"])
def model(request, models):
    return models(request.param)


@pytest.fixture(params=["siglip", "siglip2"])
def siglip(request, models):
    return models(request.param)


@pytest.fixture(scope="module")
def images():
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 255, (60, 80, 3), np.uint8)).resize(size) for size in ((80, 60), (60, 60), (50, 90))]


def own_features(clip, pixels, ids):
    """What transformers itself makes of the inputs, normalised."""
    found = clip.model.get_image_features(pixels).pooler_output, clip.model.get_text_features(ids).pooler_output
    return [F.normalize(features, dim=-1) for features in found]


def goes_on_everywhere(clip, images):
    """From each block on, `rest` comes to what the tower's and transformers' own passes come to."""
    given = clip.pixels(images), clip.tokens(CAPTIONS).ids
    for tower, x, whole in zip(clip.towers, given, own_features(clip, *given), strict=True):
        near = dict(rtol=0, atol=2e-6)
        torch.testing.assert_close(tower.encode(x), whole, **near)
        torch.testing.assert_close(tower.rest(tower.embed(x), -1, x), whole, **near)
        for layer, block in enumerate(tower.blocks):
            with torch.no_grad(), capture(block) as hidden:
                tower.encode(x)
            torch.testing.assert_close(tower.rest(hidden[0].repeat(2, 1, 1), layer, x), whole.repeat(2, 1), **near)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_rest_of_a_tower_is_the_models_own_pass(model, images, attention):
    model.model.set_attn_implementation(attention)
    goes_on_everywhere(model, images)


@pytest.mark.parametrize("size", GRIDS)
def test_clips_of_all_sizes_load_and_are_explained(models, images, size):
    clip, grid = models(size), GRIDS[size][0]
    assert clip.grid == (grid, grid)
    goes_on_everywhere(clip, images)
    a = ask("M2IB", clip, images, CAPTIONS)
    assert a.image_maps.isfinite().all()
    assert [a.words(i)[0] for i in range(3)] == [["two", "owls"], CAPTIONS[1].replace(",", " ,").split(), ["mice"]]
    assert clip.blank == 49407  # CLIP pads with EOS


def test_each_block_opened_up_comes_to_the_embedding(model, images):
    for tower, x in zip(model.towers, (model.pixels(images), model.tokens(CAPTIONS).ids), strict=True):
        hidden = tower.embed(x)
        for layer in range(tower.reader + 1):
            *_, values, probabilities = tower.attention(tower.norms[layer](hidden), layer)
            hidden = tower.finish(hidden, probabilities @ values, layer)
            torch.testing.assert_close(tower.rest(hidden, layer, x), tower.encode(x), rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_answers_alone_and_in_another_order_as_in_a_batch(model, images, name, monkeypatch):
    pixels, opened = model.pixels, []
    monkeypatch.setattr(model, "pixels", lambda images: opened.append(len(images)) or pixels(images))
    together = ask(name, model, images, CAPTIONS)
    backwards = ask(name, model, images[::-1], CAPTIONS[::-1], batch_size=2)
    assert opened == [3, 2, 1]
    torch.manual_seed(12345)
    assert together.image_maps.shape == (3, *model.grid)
    assert together.captions == CAPTIONS
    for i, image in enumerate(images):
        alone = ask(name, model, image, CAPTIONS[i])
        for other in (alone, backwards[2 - i]):
            for ours, theirs in zip(all_maps(together[i]), all_maps(other[0]), strict=True):
                assert torch.isfinite(ours).all()
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * theirs.abs().max().item())
        if name != "LeGrad":
            words, scores = together.words(i)
            assert len(words) == len(scores) > 0
            assert len(together.text_maps[i]) == len(together.tokens[i])
        assert together.heat(i).shape == image.size[::-1]


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_gives_finite_maps(folder, tmp_path, images, name):
    for checkpoint in (folder, siglip_folder(tmp_path / "siglip", gemma_like)):
        a = ask(name, load_model(str(checkpoint), "cpu", torch.bfloat16), images, CAPTIONS)
        for found in all_maps(a):
            assert found.dtype == torch.float32
            assert not found.requires_grad
            assert torch.isfinite(found).all()


def test_siglip_reads_padding_and_lower_case(siglip):
    text, small = siglip.tokens(CAPTIONS), siglip.tokens([caption.lower() for caption in CAPTIONS])
    assert text.ids.shape == (3, 64)
    assert text.valid.all()
    assert torch.equal(text.ids, small.ids)
    assert not (text.content & ((text.ids == siglip.blank) | (text.ids == siglip.tokenizer.eos_token_id))).any()
    assert [int(n) for n in text.content.sum(dim=1)] == [len(tokens) for tokens in text.tokens]
    assert "CATS" in "".join(text.tokens[1])
    ends = text.content.int().cumsum(dim=1).argmax(dim=1) + 1
    assert (text.ids[range(3), ends] == siglip.tokenizer.eos_token_id).all()
    with pytest.warns(UserWarning, match="64 positions; cut off"):
        assert siglip.tokens(["two owls " * 40]).content.sum() == 63


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, r"no tokenizer for [\s\S]*give tokenizer=.*tokenizer\.json"),
        ("$A", "this tokenizer with [0-9]+: give"),
        ("<eos> $A <eos>", "starts captions with their first word, this tokenizer"),
    ],
)
def test_a_siglip_whose_tokenizer_is_missing_or_frames_captions_otherwise_is_refused(tmp_path, template, message):
    file = siglip_folder(tmp_path, gemma_like) / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    file.rename(tmp_path / "spiece.model")
    if template:
        ids = [("<eos>", tokenizer.token_to_id("<eos>"))]
        tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=ids)
        tokenizer.save(str(file))
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path, device="cpu")


def test_m2ib_of_siglip_agrees_with_the_plain_procedure_on_the_whole_model(siglip, images):
    options = dict(beta=0.4, sigma2=0.8, steps=4, samples=3, seed=9)
    a = ask("M2IB", siglip, images[0], CAPTIONS[0], layer=(1, 0), **options)
    pixels, text, model = siglip.pixels(images[:1]), siglip.tokens(CAPTIONS[:1]), siglip.model
    seen, said = own_features(siglip, pixels, text.ids)
    of_image = naive_maps(siglip.image.blocks[1], pixels, model.get_image_features, said, **options)
    of_text = naive_maps(siglip.text.blocks[0], text.ids, model.get_text_features, seen, **options)
    torch.testing.assert_close(a.image_maps[0].flatten(), of_image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(a.text_maps[0], of_text[text.content[0]], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sign", [1, -1])  # one of them leaves something of each map
def test_siglips_head_is_what_reads_the_patches(siglip, images, sign):
    """GradCAM, Chefer, Grad-ECLIP and LeGrad worked out from the weights of the head, one head of attention after the other."""
    image, _, _ = sides(siglip, images[:1], ["two owls"])
    image.target = sign * image.target
    head = siglip.model.vision_model.head
    with torch.no_grad():
        normed = siglip.model.vision_model(image.inputs).last_hidden_state[0]
    normed.requires_grad_()
    D, d = normed.shape[1], head.attention.head_dim
    weights, biases = head.attention.in_proj_weight, head.attention.in_proj_bias
    query = weights[:D] @ head.probe[0, 0] + biases[:D]
    keys, values = normed @ weights[D : 2 * D].T + biases[D : 2 * D], normed @ weights[2 * D :].T + biases[2 * D :]
    rows = [slice(start, start + d) for start in range(0, D, d)]
    attention = [(keys[:, row] @ query[row] / d**0.5).softmax(dim=0) for row in rows]
    mixed = torch.cat([share @ values[:, row] for share, row in zip(attention, rows, strict=True)])
    read = head.attention.out_proj(mixed)
    y = F.cosine_similarity(read + head.mlp(head.layernorm(read)), image.target[0], dim=0)
    of_states, of_mixed, *of_attention = torch.autograd.grad(y, [normed, mixed, *attention])
    near = F.cosine_similarity(keys, query[None], dim=1)
    grown = torch.stack(of_attention).relu().mean(dim=0)
    expected = dict(
        legrad=(grown - grown.min()) / (grown.max() - grown.min()),
        gradcam=(normed @ of_states.mean(dim=0)).relu(),
        chefer=torch.stack([(a * slope).relu() for a, slope in zip(attention, of_attention, strict=True)]).mean(dim=0),
        gradeclip=(values @ of_mixed).relu() * (near - near.min()) / (near.max() - near.min()),
    )
    assert sum(plain.max() > 0 for plain in expected.values()) >= 3
    for name, plain in expected.items():
        (found,) = RIVALS[name].scores(image, **(dict(blocks=1) if name == "legrad" else {}))
        torch.testing.assert_close(found, plain.detach(), rtol=1e-3, atol=1e-3 * plain.max().item() + 1e-7)


def test_chefer_goes_from_siglips_head_into_its_blocks(siglip, images):
    image, _, _ = sides(siglip, images[:1], ["two owls"])
    one, five = (RIVALS["chefer"].scores(image, blocks=n)[0] for n in (1, 5))
    assert not torch.allclose(one, five)
    with pytest.raises(ValueError, match="blocks is 6: give 1 to 5"):
        RIVALS["chefer"].scores(image, blocks=6)


def test_what_is_kept_is_what_the_model_sees(model, images, monkeypatch):
    """All, or only the second patch, or only the second word, of a pair whose caption stands beside a longer one."""
    monkeypatch.setattr("m2ib_lite.side.has_bfloat16", lambda device: False)
    image, text = (next(side.singles()) for side in sides(model, images[:2], CAPTIONS[:2])[:2])
    patch, word = torch.zeros_like(image.inputs), text.inputs.clone()
    patch[..., : model.patch, model.patch : 2 * model.patch] = image.inputs[..., : model.patch, model.patch : 2 * model.patch]
    places = text.content[0].nonzero().flatten()
    word[0, places[places != places[1]]] = model.blank
    for side, second in ((image, patch), (text, word)):
        n = int(side.content.sum())
        for kept, inputs in ((torch.ones(2, n), side.inputs), (torch.eye(n)[1:2], second)):
            expected = (side.tower.rest(side.tower.embed(inputs), -1, side.inputs) * side.target).sum(dim=1)
            torch.testing.assert_close(side.keep(kept), expected.repeat(len(kept)), rtol=0, atol=2e-6)


def test_every_evaluation_runs_on_every_family(model, pairs):
    pairs = [replace(pair, caption=f"two {pair.caption}") for pair in pairs[:4]]  # which it can read
    a = ask("gradcam", model, pairs)
    only = ["projection", "random"]
    fallen = pd.concat([cascade(model, pairs[:1], [a[:1]], modality, only=only) for modality in ("image", "text")])
    retrained = roar(model, [a], seeds=1, epochs=1, progress=False)
    for table in (confidence(model, a, pairs), localisation(a, pairs), retrained, fallen):
        assert set(table["modality"]) == {"image", "text"}
        assert np.isfinite(table["value"]).all()
    assert set(fallen["stage"]) == set(only)
    options = dict(layer=1, beta=0.3, sigma2=0.5, samples=2)
    whole = ask("M2IB", model, pairs, steps=2, **options)
    for modality, expected in (("image", whole.image_maps), ("text", whole.text_maps)):
        followed, losses = follow(model, pairs, modality, (0, 2), **options)
        torch.testing.assert_close(getattr(followed[2], f"{modality}_maps"), expected, rtol=1e-4, atol=1e-4)
        assert np.isfinite(losses.select_dtypes("number")).all(axis=None)


def test_a_stage_of_the_cascade_holds_all_that_stands_above_it(model):
    for tower in model.towers:
        top = {id(weight) for module in stages(tower)[f"block {len(tower.blocks) - 1}"] for weight in module.parameters()}
        below = {id(w) for block in tower.blocks[:-1] for w in block.parameters()}
        before = [w for name, w in tower.model.named_parameters() if "embed" in name or "pre_layrnorm" in name]
        everything = {id(w) for w in (*tower.model.parameters(), *tower.project.parameters())}
        assert top == everything - below - {id(w) for w in before}


def test_another_processor_of_the_checkpoint_is_followed(tmp_path):
    """Newer files name the fast class, which would want torchvision, or nest it in processor_config.json."""
    folder = siglip_folder(tmp_path, gemma_like)
    file = folder / "preprocessor_config.json"
    file.write_text(file.read_text().replace('"SiglipImageProcessor"', '"SiglipImageProcessorFast"').replace("0.5", "0.25"))
    assert load_model(folder, device="cpu").processor.image_mean == (0.25,) * 3
    (folder / "processor_config.json").write_text(f'{{"image_processor": {file.read_text().replace("0.25", "0.75")}}}')
    file.unlink()
    assert load_model(folder, device="cpu").processor.image_mean == (0.75,) * 3


def centre(clip, size, band, axis):
    """Where a white band across a black image stands, as the model's pixels and `view` say, in the image's own pixels."""
    canvas = np.zeros((size[1], size[0], 3), np.uint8)
    canvas[(slice(None), slice(*band)) if axis == 0 else slice(*band)] = 255
    light = clip.pixels([Image.fromarray(canvas)])[0].mean(dim=0).sum(dim=axis)
    light = light - light.min()
    at = ((torch.arange(len(light)) + 0.5) * light).sum() / light.sum() / len(light)
    low, high = clip.view(size)[axis], clip.view(size)[axis + 2]
    return (low + at * (high - low)).item()


@pytest.mark.parametrize("family", ["B/32", "siglip2", "openai"])
@pytest.mark.parametrize("size", [(333, 500), (500, 333), (61, 60), (1, 1000), (1000, 1), (7, 1000), (640, 480)])
def test_a_view_is_where_the_processor_looks(models, family, size):
    clip = models(family)
    view = clip.view(size)
    for axis in (0, 1):
        low, high = view[axis], view[axis + 2]
        assert -1e-6 <= low < high <= size[axis] + 1e-6
        if high - low > 16:
            band = round(low + 0.3 * (high - low)), round(low + 0.6 * (high - low))
            assert centre(clip, size, band, axis) == pytest.approx(sum(band) / 2, abs=max(0.02 * (high - low), 0.5))
