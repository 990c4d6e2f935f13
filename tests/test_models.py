import json
import warnings
from copy import copy

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, CLIPModel

from m2ib_lite import load_model
from m2ib_lite.hooks import capture
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


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_the_rest_of_a_tower_continues_its_own_forward_pass(clip, pairs, attention):
    inputs = clip.pixels([pair.image for pair in pairs]), clip.tokens(CAPTIONS).ids
    clip.model.set_attn_implementation(attention)
    for tower, x in zip(clip.towers, inputs, strict=True):
        for layer in range(len(tower.blocks)):
            with torch.no_grad(), capture(tower.blocks[layer]) as hidden:
                whole = tower.encode(x)
            rest = tower.rest(hidden[0].repeat(2, 1, 1), layer, x)
            torch.testing.assert_close(rest, whole.repeat(2, 1), rtol=0, atol=1e-6)
    clip.model.set_attn_implementation("sdpa")


def test_a_block_opened_up_is_the_block(clip, pairs):
    inputs = clip.pixels([pair.image for pair in pairs]), clip.tokens(CAPTIONS).ids
    for tower, x in zip(clip.towers, inputs, strict=True):
        hidden = tower.embed(x)
        torch.testing.assert_close(tower.rest(hidden, -1, x), tower.encode(x), rtol=0, atol=1e-6)
        for layer, block in enumerate(tower.blocks):
            *_, values, probabilities = tower.attention(tower.norms[layer](hidden), layer)
            whole = block(hidden, None, is_causal=tower.causal)
            torch.testing.assert_close(tower.finish(hidden, probabilities @ values, layer), whole, rtol=0, atol=1e-5)
            hidden = whole


def test_pooling_follows_the_rule_of_the_checkpoint(clip, monkeypatch):
    ids = torch.tensor([[1, 7, 9, 3, 3], [1, 3, 3, 3, 3]])
    assert clip.text.pooled(ids).tolist() == [3, 1]
    monkeypatch.setattr(clip.text.model, "eos_token_id", 2)
    assert clip.text.pooled(ids).tolist() == [2, 1]  # eos_token_id 2 in old configs means: at the highest id


def test_content_is_what_lies_between_the_ends(clip):
    text = clip.tokens(CAPTIONS)
    assert text.tokens[0] == ["an", "owl"]
    assert text.tokens[1] == CAPTIONS[1].split()
    assert text.content.sum(dim=1).tolist() == [2, 10, 5]
    assert text.valid.sum(dim=1).tolist() == [4, 12, 7]
    assert not text.content[:, 0].any()


def test_words_cut_off_or_not_known_are_warned_of(clip):
    with pytest.warns(UserWarning, match="caption 0 has words .* does not know: zeppelin"):
        clip.tokens(["a zeppelin and an owl"])
    long = " ".join(["owl"] * 38 + ["tiger", "lion"])
    with pytest.warns(UserWarning, match="40 positions; cut off: 'tiger lion'"):
        text = clip.tokens([long])
    assert text.ids.shape == (1, 40)
    assert text.tokens == [["owl"] * 38]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip.tokens(CAPTIONS)


def test_a_view_undoes_resize_and_centre_crop(clip):
    assert clip.view((112, 112)) == (0, 0, 112, 112)
    assert clip.view((300, 200)) == pytest.approx((50, 0, 250, 200))
    squeezing = copy(clip)
    squeezing.processor = type(clip.processor)(size={"height": 112, "width": 112}, do_center_crop=False)
    assert squeezing.view((300, 200)) == (0, 0, 300, 200)
    assert clip.view((56, 112)) == pytest.approx((0, 28, 56, 84))


def test_defaults_follow_the_depth_unless_the_folder_has_its_own(folder):
    assert load_model(str(folder)).defaults == {"layer": (0, 1), "beta": (0.1, 0.1), "sigma2": (1.0, 1.0)}
    (folder / "m2ib.json").write_text(json.dumps({"layer": [0, 0], "beta": [1, 0.5]}))
    assert load_model(str(folder)).defaults == {"layer": (0, 0), "beta": (1, 0.5), "sigma2": (1.0, 1.0)}


def test_devices():
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_no_such_model_names_what_to_give(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"no model 'nobody/nothing' \(.*connect.*\): give 'testbed', a folder"):
        load_model("nobody/nothing")


def test_a_folder_without_weights_or_config_says_so(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="no weights: put"):
        load_model(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no config\.json"):
        load_model(str(folder))


def rewrite(folder, change):
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_without_all_weights_is_refused(folder):
    rewrite(folder, lambda weights: weights.pop("text_model.final_layer_norm.bias"))
    with pytest.raises(ValueError, match=r"lacks 1 weights .* first is text_model\.final_layer_norm\.bias: get a whole"):
        load_model(str(folder))
    rewrite(folder, lambda weights: weights.update({"text_model.final_layer_norm.bias": torch.zeros(3)}))
    with pytest.raises(ValueError, match="lacks 1 weights"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"model_type": "blip"}', "holds a model of type 'blip': give a CLIP or a SigLIP$"),
        ("config.json", '{"model_type": "siglip2"}', "give a CLIP or a SigLIP .* not NaFlex"),
        ("config.json", "{", "cannot be read .* not a valid JSON file"),
        ("model.safetensors", "torn", "cannot be read"),
        ("tokenizer.json", None, "no tokenizer for .*: give tokenizer="),
        ("preprocessor_config.json", None, "cannot be read"),
        ("m2ib.json", '{"layer": 2}', r"layer is 2; it may hold layer, beta and sigma2, each a list"),
        ("m2ib.json", '{"layers": [2, 2]}', "layers is"),
    ],
)
def test_a_broken_part_of_a_checkpoint_is_named(folder, name, text, message):
    (folder / name).unlink(missing_ok=True)
    if text:
        (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load_model(str(folder))


def test_a_tokenizer_that_leaves_eos_out_is_refused(folder):
    file = folder / "tokenizer.json"
    rules = json.loads(file.read_text())
    file.write_text(json.dumps(dict(rules, post_processor=None)))
    with pytest.raises(ValueError, match=r"ends captions with token 3 of \d+, this tokenizer with \d+: give its own"):
        load_model(str(folder))


def test_an_old_config_reads_the_highest_id_which_must_be_eos(folder):
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"ends captions with token 2 of \d+, this tokenizer with 3: give its own"):
        load_model(str(folder))


def test_weights_that_are_not_finite_are_refused(folder):
    rewrite(folder, lambda weights: weights["visual_projection.weight"][0].fill_(float("nan")))
    with pytest.raises(ValueError, match=r"1 weights hold NaN or infinity, the first is visual_projection\.weight"):
        load_model(str(folder))
