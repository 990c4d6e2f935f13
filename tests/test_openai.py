import gzip
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from families import openai_bpe, openai_model, openai_module
from hostile import Hostile
from safetensors.torch import save_file

from m2ib_lite import load_model
from m2ib_lite.models import BUILT_IN
from m2ib_lite.models.openai import read_bpe
from m2ib_lite.words import whole_words

CAPTIONS = ["an owl", "Small left PNEUMOTHORAX, no cardiomegaly.", "\U0001f989\U0001f989 and \u6c14\u80f8: it's 42% na\u00efve"]

FC = "{}transformer.resblocks.0.mlp.c_fc.weight"  # whose width is the tower's


def save(state, path):
    (save_file if path.suffix == ".safetensors" else torch.save)(state, path)
    return path


@pytest.fixture(scope="module")
def original():
    return openai_model()


@pytest.fixture
def weights(original, tmp_path):
    return save(original.state_dict(), tmp_path / "weights.pt")


def load(path, **options):
    return load_model(path, device="cpu", **{"tokenizer": openai_bpe(), **options})


def same(clip, original, tolerance=1e-5):
    """Both towers give what OpenAI's give, before and after they are normalised."""
    pixels, text = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(1)), clip.tokens(CAPTIONS)
    with torch.no_grad():
        images, texts = original.encode_image(pixels), original.encode_text(text.ids)
        found = clip.model.get_image_features(pixels).pooler_output, clip.model.get_text_features(text.ids).pooler_output
        torch.testing.assert_close(found, (images, texts), rtol=0, atol=tolerance)
        normalised = F.normalize(images), F.normalize(texts)
        torch.testing.assert_close((clip.image.encode(pixels), clip.text.encode(text.ids)), normalised, rtol=0, atol=tolerance)
    assert clip.model.logit_scale == original.logit_scale


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
def test_a_state_dict_becomes_the_same_model(original, tmp_path, name):
    clip = load(save(original.state_dict(), tmp_path / name))
    same(clip, original)
    assert (clip.grid, clip.view((112, 56))) == ((7, 7), (28, 0, 84, 56))
    assert [block.self_attn.num_heads for tower in clip.towers for block in tower.blocks] == [2] * 4 + [1] * 3


def test_what_training_and_torchscript_leave_around_the_weights_is_taken_off(original, tmp_path):
    state = {f"module.{name}": weight for name, weight in original.state_dict().items()}
    same(load(save({"epoch": 3, "state_dict": state}, tmp_path / "trained.pt")), original)
    counts = dict(input_resolution=torch.tensor(56), context_length=torch.tensor(77), vocab_size=torch.tensor(49408))
    same(load(save(state | counts | {"epoch": 3}, tmp_path / "flat.pt")), original)


def test_half_precision_inside_is_computed_in_the_precision_that_is_asked_for(tmp_path):
    original = openai_model()
    openai_module("model").convert_weights(original)
    clip = load(save(original.state_dict(), tmp_path / "half.pt"))
    assert {weight.dtype for weight in clip.model.parameters()} == {torch.float32}
    same(clip, original.float())
    assert load(tmp_path / "half.pt", dtype=torch.bfloat16).model.dtype == torch.bfloat16


def test_the_vocabulary_is_openais_packed_or_not_and_another_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", SimpleNamespace(fix_text=lambda text: text))  # which mends broken text, of no use here
    simple = openai_module("simple_tokenizer").SimpleTokenizer(str(openai_bpe()))
    (tmp_path / "bpe.txt").write_bytes(gzip.decompress(openai_bpe().read_bytes()))
    for path in (openai_bpe(), tmp_path / "bpe.txt"):
        tokenizer = read_bpe(path)
        assert tokenizer.get_vocab() == simple.encoder
        assert tokenizer(CAPTIONS).input_ids == [[49406, *simple.encode(caption), 49407] for caption in CAPTIONS]
    (tmp_path / "short.txt").write_text("#version\na b\n")
    with pytest.raises(ValueError, match=r"short\.txt is not OpenAI's BPE file"):
        read_bpe(tmp_path / "short.txt")


@pytest.mark.parametrize("spoil", [lambda whole: whole[:5000], lambda whole: whole[:5000] + bytes(500) + whole[5500:]])
def test_a_torn_vocabulary_is_refused(weights, tmp_path, spoil):
    (tmp_path / "bpe.txt.gz").write_bytes(spoil(openai_bpe().read_bytes()))
    with pytest.raises(ValueError, match=r"no tokenizer for .*weights\.pt at .*bpe\.txt\.gz \(.+\): give tokenizer="):
        load(weights, tokenizer=tmp_path / "bpe.txt.gz")


def test_real_words_come_in_real_pieces(weights):
    text = load(weights).tokens(CAPTIONS)
    assert text.tokens[1] == ["Small", "left", "PNEU", "MO", "THOR", "AX", ",", "no", "cardi", "ome", "gal", "y", "."]
    assert "".join(text.tokens[2]) == CAPTIONS[2].replace(" ", "")
    assert text.tokens[2][:4] == ["\U0001f989", "", "\U0001f989", ""]
    words, places = whole_words(CAPTIONS[1], text.tokens[1])
    assert words == ["Small", "left", "PNEUMOTHORAX", ",", "no", "cardiomegaly", "."]
    assert places == [0, 1, 2, 2, 2, 2, 3, 4, 5, 5, 5, 5, 6]
    owls = ["\U0001f989", "\U0001f989", "and", "\u6c14\u80f8", ":", "it", "'s", "42", "%", "na\u00efve"]
    assert whole_words(CAPTIONS[2], text.tokens[2])[0] == owls


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("torn.pt", lambda path: path.write_bytes(b"torn")),
        ("torn.safetensors", lambda path: path.write_bytes(b"torn")),
        ("script.pt", lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))),
        ("code.pt", lambda path: torch.save({"visual.proj": Hostile(path.with_name("harm"))}, path)),
    ],
)
def test_a_file_of_more_than_tensors_is_refused_with_what_to_do_and_no_code_is_run(tmp_path, name, write):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=r"cannot be read as tensors alone, [\s\S]*torch.jit.load\(.*\)\.state_dict\(\)"):
        load(tmp_path / name)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {"visual.layer1.0.conv1.weight": torch.zeros(1)}, "is a CLIP with a ResNet"),
        (lambda state: {"vision_model.embeddings.class_embedding": torch.zeros(1)}, r"no visual\.conv1\.weight.* as its folder"),
        (lambda state: torch.zeros(3), r"has no visual\.conv1\.weight"),
        (lambda state: {k: v for k, v in state.items() if k[:2] != "tr"}, r"has no transformer\.resblocks\.0"),
        (lambda state: state | {"visual.ln_post.bias": torch.zeros(3)}, r"lacks 1 weights.*post_layernorm\.bias"),
        (lambda state: state | {"visual.resblocks.0.ls_1.gamma": torch.zeros(3)}, r"does not have, such as visual\.resblocks"),
        (lambda state: state | {FC.format("visual."): torch.zeros(320, 80)}, r"\(its towers are 80 and 64 wide\): convert it"),
        (lambda state: state | {FC.format("visual."): torch.zeros(5120, 1280)}, "not one of OpenAI's ViTs .* are 1280 and 64 wide"),
        (lambda state: state | {"visual.conv1.weight": torch.zeros(128, 3, 0, 0)}, r"has no visual\.conv1\.weight of 4 dim"),
        (lambda state: state | {"token_embedding.weight": torch.zeros(3)}, r"has no token_embedding\.weight of 2 dimensions"),
    ],
)
def test_other_weights_are_refused_by_name(original, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        load(save(change(original.state_dict()), tmp_path / "weights.pt"))


def test_a_tokenizer_that_is_not_the_models_is_refused(weights, monkeypatch):
    with pytest.raises(ValueError, match="ends captions with token 49407 of 49408, this tokenizer with 3: give its own"):
        load(weights, tokenizer=BUILT_IN["testbed"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"no tokenizer for [\s\S]*give tokenizer=, OpenAI's bpe_simple_vocab_16e6"):
        load(weights, tokenizer=None)
