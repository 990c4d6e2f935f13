"""Small checkpoints of every family that load_model knows, with random weights: folders and files as they are published."""

import importlib.util
import json
from importlib.metadata import distribution
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, TokenizersBackend
from transformers.models.siglip import SiglipConfig, SiglipImageProcessorPil, SiglipModel

from m2ib_lite.models.openai import read_bpe

CORPUS = ["two owls and a violin on the grass", "a photo of three cats, a dog and a piece of cheese", "mice under the tall trees"]
GRIDS = {"B/32": (7, 2), "B/16": (14, 49407), "L/14": (16, 2), "L/14 at 336": (24, 49407)}  # grid, eos_token_id of the config


def tiny_clip(folder, clip, image_blocks=2, text_blocks=3):
    """A CLIP of few blocks with another's tokenizer and processor.  -> folder"""
    shape = dict(hidden_size=16, intermediate_size=32, num_attention_heads=2, projection_dim=8)
    ids = dict(vocab_size=len(clip.tokenizer), max_position_embeddings=20, pad_token_id=0, bos_token_id=2, eos_token_id=3)
    text = dict(shape, num_hidden_layers=text_blocks, **ids)
    vision = dict(shape, num_hidden_layers=image_blocks, image_size=112, patch_size=28)
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    for part in (model, clip.tokenizer, clip.processor):
        part.save_pretrained(folder)
    return folder


def openai_bpe():
    """The BPE file, in the folder of a package with OpenAI's model.py, too; its __init__ wants torchvision and is not run."""
    return Path(distribution("clip-anytorch").locate_file("clip/bpe_simple_vocab_16e6.txt.gz"))


def openai_module(name):
    """model.py or simple_tokenizer.py of that package, alone."""
    spec = importlib.util.spec_from_file_location(f"openai_{name}", openai_bpe().with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def fresh(model, seed=0):
    """The model with every weight drawn anew, so that none is 0 or 1 and equal to another by chance."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "logit" not in name:
                scale = 0.3 if weight.ndim < 2 else 1.5 * weight[0].numel() ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=draw) * scale)
    return model.eval()


def clip_folder(folder, size):
    """A CLIP with the grid of `size`, patches of 4 pixels, OpenAI's vocabulary; its processor as the first checkpoints wrote it."""
    grid, eos = GRIDS[size]
    shape = dict(intermediate_size=48, num_attention_heads=2)
    text = dict(shape, hidden_size=16, num_hidden_layers=3, vocab_size=49408, max_position_embeddings=77, eos_token_id=eos)
    vision = dict(shape, hidden_size=24, num_hidden_layers=4, image_size=4 * grid, patch_size=4)
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)
    fresh(CLIPModel(config)).save_pretrained(folder)
    read_bpe(openai_bpe()).save_pretrained(folder)
    old = dict(feature_extractor_type="CLIPFeatureExtractor", size=4 * grid, crop_size=4 * grid, do_center_crop=True)
    mean, std = CLIPImageProcessorPil.image_mean, CLIPImageProcessorPil.image_std
    old |= dict(do_resize=True, do_normalize=True, resample=3, image_mean=mean, image_std=std)
    (folder / "preprocessor_config.json").write_text(json.dumps(old))
    return folder


def sentencepieces(eos):
    """A tokenizer in the manner of SigLIP's, without punctuation, which pads with EOS."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Replace(Regex(r"[!-/:-@\[-`{-~]"), "")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<unk>", eos]
    tokenizer.train_from_iterator(CORPUS * 9, trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>"))
    return tokenizer, dict(eos_token=eos, pad_token=eos, unk_token="<unk>")


def gemma_like(eos):
    """A tokenizer in the manner of Gemma's, with bytes for what it does not know; it leaves the case as it is."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\u2581", "merged_with_next")
    special = ["<pad>", eos, "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer.train_from_iterator(CORPUS * 9, trainers.BpeTrainer(vocab_size=320, special_tokens=special))
    return tokenizer, dict(eos_token=eos, pad_token="<pad>", unk_token="<unk>")


def siglip_folder(folder, make_tokenizer):
    """A SigLIP whose patches of 14 do not reach the last pixels of its 60, as those of so400m at 384 do not."""
    tokenizer, named = make_tokenizer("<eos>")
    ids = [("<eos>", tokenizer.token_to_id("<eos>"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="$A <eos>", special_tokens=ids)
    TokenizersBackend(tokenizer_object=tokenizer, model_input_names=["input_ids"], **named).save_pretrained(folder)
    shape = dict(intermediate_size=48, num_attention_heads=2, hidden_size=16)
    text = dict(shape, num_hidden_layers=3, vocab_size=tokenizer.get_vocab_size(), max_position_embeddings=64)
    vision = dict(shape, num_hidden_layers=4, image_size=60, patch_size=14)
    fresh(SiglipModel(SiglipConfig(text_config=text, vision_config=vision))).save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 60, "width": 60}).save_pretrained(folder)
    return folder


def openai_model(layers=(4, 3), widths=(128, 64)):
    """OpenAI's own CLIP, as its model.py builds it, with 7 x 7 patches of 8 pixels."""
    vision = dict(image_resolution=56, vision_layers=layers[0], vision_width=widths[0], vision_patch_size=8)
    text = dict(context_length=77, vocab_size=49408, transformer_layers=layers[1], transformer_width=widths[1])
    return fresh(openai_module("model").CLIP(embed_dim=32, transformer_heads=widths[1] // 64, **vision, **text))
