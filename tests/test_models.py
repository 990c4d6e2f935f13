import json
import socket
import time
import warnings

import pytest
import torch
from families import tiny_clip
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel

from m2ib_lite import load_model
from m2ib_lite.models import BUILT_IN, pick_device

CAPTIONS = ["an owl", "two mice and a piece of cheese on the grass", "we can see three trees"]


def test_the_testbed_loads_like_any_hub_model(clip, pairs):
    plain = CLIPModel.from_pretrained(BUILT_IN["testbed"])
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN["testbed"])
    pixels = clip.pixels([pair.image for pair in pairs])
    with torch.no_grad():
        out = plain(**tokenizer(CAPTIONS, padding=True, return_tensors="pt"), pixel_values=pixels)
        torch.testing.assert_close(clip.image.encode(pixels), out.image_embeds, rtol=0, atol=1e-6)
        torch.testing.assert_close(clip.text.encode(clip.tokens(CAPTIONS).ids), out.text_embeds, rtol=0, atol=1e-6)


def test_content_is_what_lies_between_the_ends(clip):
    text = clip.tokens(CAPTIONS)
    assert text.tokens == [caption.split() for caption in CAPTIONS]
    assert text.content.sum(dim=1).tolist() == [2, 10, 5]
    assert text.valid.sum(dim=1).tolist() == [4, 12, 7]
    assert not text.content[:, 0].any()


def test_words_cut_off_or_not_known_are_warned_of(clip):
    with pytest.warns(UserWarning, match="caption 0 has words .* does not know: zeppelin"):
        clip.tokens(["a zeppelin and an owl"])
    long = " ".join(["owl"] * 38 + ["tiger", "lion"])
    with pytest.warns(UserWarning, match="40 positions; cut off: 'tiger lion'"):
        assert clip.tokens([long]).tokens == [["owl"] * 38]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.tokens(CAPTIONS)


def test_defaults_follow_the_depth_unless_the_folder_has_its_own(folder):
    published = {"layer": (0, 1), "beta": (0.1, 0.1), "sigma2": (1.0, 1.0), "standardise": (False, False)}
    assert load_model(str(folder)).defaults == published
    settings = {"best": {"M2IB": {"layer": [0, 0], "beta": [1, 0.5], "standardise": [True, False]}}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "others.txt").write_text("an owl\na cat\n")
    own = load_model(folder, device="cpu")
    told = "4 x 4 patches, 2 image and 3 text blocks, on cpu; layer (0, 0), beta (1, 0.5), sigma2 (1.0, 1.0), "
    assert repr(own).replace("[", "(").replace("]", ")") == f"Clip {folder}: {told}standardise (True, False)"
    assert (own.published, own.others, own.settings) == (published, ["an owl", "a cat"], settings)
    deep = load_model(tiny_clip(folder, own, text_blocks=12))
    assert deep.published == {**published, "layer": (0, 9)}
    assert deep.published_medical == {**published, "layer": (0, 7), "beta": (1.0, 1.0)}
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(params=["refused", "silent"])
def no_hub(request, monkeypatch, tmp_path):
    """A machine without the hub: an address that refuses, or takes the question and never answers.  -> the hub's empty cache"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        if request.param == "refused":
            server.close()
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/{revision}/{filename}")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        yield tmp_path / "hub"


def test_without_the_hub_a_name_is_refused_soon_with_what_is_supported(no_hub, capfd):
    name, start = "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", time.monotonic()
    said = rf"no model '{name}' \(.*cannot be reached\): give .* only open_clip reads, as BiomedCLIP, is not supported"
    with pytest.raises(FileNotFoundError, match=said) as refused:
        load_model(name)
    assert time.monotonic() - start < 10  # 2 s are promised
    assert refused.value.__suppress_context__
    assert capfd.readouterr() == ("", "")


def test_without_the_hub_a_model_of_its_cache_loads(no_hub, clip):
    snapshot = no_hub / "models--some--clip" / "snapshots" / "abc"
    tiny_clip(snapshot, clip)
    (no_hub / "models--some--clip" / "refs").mkdir()
    (no_hub / "models--some--clip" / "refs" / "main").write_text(snapshot.name)
    found, same = load_model("some/clip", device="cpu"), load_model(snapshot, device="cpu")
    assert found.name == "some/clip"
    assert torch.equal(found.text.encode(found.tokens(CAPTIONS).ids), same.text.encode(same.tokens(CAPTIONS).ids))


def test_what_is_no_name_on_the_hub_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no model '.*hf-hub:some' \(Repo id must"):
        load_model(f"{tmp_path}/hf-hub:some")


def without_eos(tokenizer):
    return json.dumps(json.loads(tokenizer) | {"post_processor": None})


def highest_id(config):
    """As old configs mean it."""
    return config.replace('"eos_token_id": 3', '"eos_token_id": 2')


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", lambda _: '{"model_type": "blip"}', "holds a model of type 'blip': give a CLIP or a SigLIP$"),
        ("config.json", lambda _: '{"model_type": "siglip2"}', "give a CLIP or a SigLIP .* not NaFlex"),
        ("config.json", lambda _: "{", "cannot be read .* not a valid JSON file"),
        ("config.json", None, r"no config\.json"),
        ("model.safetensors", None, "no weights: put"),
        ("preprocessor_config.json", None, "cannot be read"),
        ("tokenizer.json", None, "no tokenizer for .*: give tokenizer="),
        ("settings.json", lambda _: '{"best": {"M2IB": {"layer": 2}}}', r"layer is 2; M2IB has layer, beta, .*, each a list"),
        ("settings.json", lambda _: '{"best": {"M2IB": {"layers": [2, 2]}}}', "layers is"),
        ("tokenizer.json", without_eos, r"ends captions with token 3 of \d+, this tokenizer with \d+: give its own"),
        ("config.json", highest_id, r"ends captions with token 2 of \d+, this tokenizer with 3: give its own"),
    ],
)
def test_a_broken_part_of_a_checkpoint_is_named(folder, name, change, message):
    text = (folder / name).read_text() if change and (folder / name).exists() else ""
    (folder / name).unlink(missing_ok=True)
    if change:
        (folder / name).write_text(change(text))
    absent = change is None and name in ("config.json", "model.safetensors")
    with pytest.raises(FileNotFoundError if absent else ValueError, match=message):
        load_model(str(folder))


BIAS = "text_model.final_layer_norm.bias"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.pop(BIAS), f"lacks 1 weights .* first is {BIAS}: get a whole"),
        (lambda weights: weights.update({BIAS: torch.zeros(3)}), "lacks 1 weights"),
        (lambda weights: weights[BIAS].fill_(torch.nan), f"1 weights hold NaN or infinity, the first is {BIAS}"),
    ],
)
def test_weights_that_are_absent_or_not_finite_are_refused(folder, change, message):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=message):
        load_model(str(folder))
