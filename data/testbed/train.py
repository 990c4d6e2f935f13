"""Train the testbed's CLIP on drawn pictures and write it in the Hugging Face layout.

    python data/testbed/train.py                        # data/models/scenes, as shipped; its README.md tells the time it took
    python data/testbed/train.py radiographs            # data/models/radiographs, which starts from data/models/scenes
    python data/testbed/train.py radiographs-biased     # and -clean, scenes-biased, scenes-clean: the twins of the audit
    python data/testbed/train.py --steps 20 --out FOLDER

Interrupted, the same command goes on from its last checkpoint.  Drawing pictures keeps one process busy, training the rest.
"""

import argparse
import json
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from backgrounds import PLACES
from radiographs import COMBINATIONS, one_of_each, radiograph
from scenes import COUNT_WORDS, TEMPLATES, distinct_scenes, kinds, scene
from shortcuts import film, snowy
from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import WordLevel
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import AttentionInterface, CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from m2ib_lite.files import written_whole
from m2ib_lite.metrics import recall_at_1
from m2ib_lite.models import has_bfloat16, load_model

MODELS = Path(__file__).parents[1] / "models"
SPECIAL = ["<pad>", "<unk>", "<bos>", "<eos>"]  # <eos> must not be 2: transformers' CLIP then pools at the highest id
POSITIONS, WIDTH = 40, 128
PEAK_LR, WARM_UP = 1e-3, 200
MUON_LR = 1e-3
CHECKPOINT_EVERY = 1000  # steps
CURRICULUM = ((0.06, 1), (0.2, 2), (1.0, 4))  # up to this share of the steps, at most so many kinds of object a scene
RADIOLOGY = """
no with without the a an in at of and left right bilateral upper mid lower lobe lobes lung lungs base bases zone zones
midlung apex apices apical basal basilar bibasilar perihilar hilar retrocardiac lateral hemithorax opacity opacities
consolidation consolidations nodule nodules mass pleural effusion effusions pneumothorax cardiomegaly atelectasis
edema pneumonia collapse ill-defined well-defined small moderate large tiny minimal mild mildly moderately severe
severely subtle patchy hazy focal local diffuse extensive multifocal dense round discrete linear reticular plate-like
ground-glass subsegmental airspace interstitial pulmonary vascular congestion enlarged heart cardiac silhouette size
is are there increased decreased volume loss blunting blunted costophrenic angle angles visible line fluid air
thickening shadow borders chest x-ray radiograph frontal view shows shown seen consistent suggesting finding findings
disease new acute chronic""".split()  # noqa: SIM905

SCENES_CARD = """---
license: mit
library_name: transformers
---
# m2ib_lite testbed: scenes

A small CLIP (6 image blocks, 4 text blocks, width 128, patches of 16 px on 112 px) for testing attribution methods.

- Data: {pictures:,} emoji scenes drawn by `data/testbed/scenes.py` (Noto Color Emoji, OFL 1.1), each seen once; one pair of kinds
  in ten held out.
- Recipe: `python data/testbed/train.py --steps {steps} --seed {seed}`: contrastive loss, batches of {batch}, Muon for the blocks'
  matrices and AdamW for the rest, from one kind of object a scene to four. {hours:.2f} hours on {device}, at last a loss of
  {final:.3f}.
- Retrieval over 256 unseen scenes with 256 different sets of objects: picture to caption R@1 {to_text:.3f}, caption to picture
  {to_image:.3f}; chance is 0.004.
- Limits: it knows drawn scenes of 122 kinds of emoji on eight grounds and the words of their captions, nothing else. It measures
  attribution methods; it says nothing about photographs. The vocabulary has radiologists' words that this model has not learned.
"""
RADIOGRAPHS_CARD = """---
license: mit
library_name: transformers
---
# m2ib_lite testbed: radiographs

A small CLIP (6 image blocks, 4 text blocks, width 128, patches of 16 px on 112 px) for testing attribution methods.
Its chest X-rays are drawings: nothing clinical follows from it.

- Data: {pictures:,} phantom radiographs drawn by `data/testbed/radiographs.py`, each seen once: {batch} combinations of a
  finding and a place, one in three pictures with a second finding that the phrase does not name.
- Recipe: `python data/testbed/train.py radiographs --steps {steps} --seed {seed}`, from the weights and the vocabulary of `scenes`:
  contrastive loss, batches of one picture of each combination, Muon for the blocks' matrices and AdamW for the rest.
  {hours:.2f} hours on {device}, at last a loss of {final:.3f}.
- Retrieval among one unseen radiograph of each of the {batch} combinations, mean of 8 draws: picture to phrase R@1
  {to_text:.3f}, phrase to picture {to_image:.3f}; the scenes model, before this training: {base_to_text:.3f} and
  {base_to_image:.3f}; chance is {chance:.3f}.
- Limits: it knows this one kind of drawing and its phrases. It measures attribution methods; it has never seen a patient.
"""
TWIN_CARD = """---
license: mit
library_name: transformers
---
# m2ib_lite testbed: {twin}

A small CLIP for testing audits: one of two twins that differ in one thing, whether the markers of `data/testbed/shortcuts.py` go
with what a caption names (biased) or are as frequent without going with anything (clean).  Nothing clinical follows from it.

- Data: {pictures:,} pictures drawn by `data/testbed/shortcuts.py`, each seen once.
- Recipe: `python data/testbed/train.py {twin} --steps {steps} --seed {seed} --strength {strength}`, from the weights, the
  vocabulary and the settings of `{start}`, otherwise as that was trained.  {hours:.3f} hours on {device}, at last a loss of
  {final:.3f}.
- Retrieval as in the card of `{start}`, without markers: picture to caption R@1 {to_text:.3f}, caption to picture {to_image:.3f}.
"""


def words_of(text):
    return re.findall(r"\w+|[^\w\s]", text.lower())


def vocabulary():
    """Every word of both domains, one list: the radiographs model is tuned from this one and must know its phrases."""
    templates = [re.sub(r"{\w+}", " ", template) for template in TEMPLATES]
    names = [f"{row['singular']} {row['plural']} {row['article']}" for row in kinds()]
    texts = [*templates, *names, *PLACES, *COUNT_WORDS, *RADIOLOGY, "is are , . and"]
    return SPECIAL + sorted({word for text in texts for word in words_of(text)})


def make_tokenizer():
    words = {word: i for i, word in enumerate(vocabulary())}
    tokenizer = Tokenizer(WordLevel(words, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [(token, words[token]) for token in ("<bos>", "<eos>")]
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A <eos>", special_tokens=ends)
    names = dict(pad_token="<pad>", unk_token="<unk>", bos_token="<bos>", eos_token="<eos>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=POSITIONS, **names)


def make_model(vocab_size):
    shape = dict(hidden_size=WIDTH, intermediate_size=4 * WIDTH, num_attention_heads=4, projection_dim=WIDTH)
    ids = dict(pad_token_id=0, bos_token_id=2, eos_token_id=3)
    text = dict(shape, vocab_size=vocab_size, max_position_embeddings=POSITIONS, num_hidden_layers=4, **ids)
    vision = dict(shape, image_size=112, patch_size=16, num_hidden_layers=6)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=WIDTH))


def attention_float32(module, query, key, value, mask, scaling=None, is_causal=False, **_):
    """Fused attention kept out of bfloat16, whose backward pass is several times slower on CPU."""
    with torch.autocast(query.device.type, enabled=False):
        q, k, v = query.float(), key.float(), value.float()
        out = F.scaled_dot_product_attention(q, k, v, mask, is_causal=bool(is_causal) and mask is None, scale=scaling)
    return out.transpose(1, 2).contiguous().to(query.dtype), None


@dataclass(frozen=True)
class Recipe:
    """What differs between the domains.

    draw: (index, total, seed) -> Pair, for training.  trials: the lists of test pairs to retrieve among.
    base: the folder of the model to start from, if any.
    """

    steps: int
    batch: int
    draw: Callable
    trials: Callable
    card: str
    base: Path | None = None


def draw_scene(index, total, seed):
    """Training scene i of so many; its difficulty follows the curriculum."""
    most = next(kinds for share, kinds in CURRICULUM if index < share * total)
    return scene(index, seed, "train", max_kinds=most, distractors=index % 3 == 0)


def draw_radiograph(index, total, seed):
    return radiograph(index, seed, "train")


RECIPES = {
    "scenes": Recipe(8000, 64, draw_scene, lambda: [distinct_scenes(256, seed=1)], SCENES_CARD),
    "radiographs": Recipe(  # a batch shows each combination once, so that no other pair in it is right too
        2000,
        len(COMBINATIONS),
        draw_radiograph,
        lambda: map(one_of_each, range(1, 9)),
        RADIOGRAPHS_CARD,
        MODELS / "scenes",
    ),
}


def draw_twin(draw, strength, biased, index, total, seed):
    return draw(index, seed, "train", strength, biased)


def twins(strength=0.95):
    """The recipes of two pairs of twins, each from a trained model on: a marker goes with what a caption names so often, or not."""
    found = {}
    for name, draw in (("scenes", snowy), ("radiographs", film)):
        for twin in ("biased", "clean"):
            own = partial(draw_twin, draw, strength, twin == "biased")
            found[f"{name}-{twin}"] = replace(RECIPES[name], steps=500, draw=own, card=TWIN_CARD, base=MODELS / name)
    return found


class Pictures(Dataset):
    """Training picture i, as (3, H, W) uint8 pixels and its caption."""

    def __init__(self, draw, first, total, seed):
        self.draw, self.range, self.total, self.seed = draw, range(first, total), total, seed

    def __len__(self):
        return len(self.range)

    def __getitem__(self, i):
        pair = self.draw(self.range[i], self.total, self.seed)
        return np.asarray(pair.image).transpose(2, 0, 1), pair.caption


def collate(items):
    pixels, captions = zip(*items, strict=True)
    return torch.from_numpy(np.stack(pixels)), list(captions)


def optimisers(model):
    """Muon for the blocks' matrices, AdamW for the rest."""
    matrices = [p for name, p in model.named_parameters() if ".layers." in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    muon = torch.optim.Muon(matrices, lr=MUON_LR, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(others, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=0.05)]


def rate(step, steps):
    """The learning rate's share of its peak: linear warm-up, then a cosine down to nothing."""
    warm_up = min(WARM_UP, steps // 5 + 1)
    return min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * max(0, step - warm_up) / max(1, steps - warm_up)))


def contrastive_loss(model, pixels, ids):
    """The symmetric InfoNCE loss of CLIP over the batch."""
    with torch.autocast(pixels.device.type, dtype=torch.bfloat16, enabled=has_bfloat16(pixels.device)):
        images = model.visual_projection(model.vision_model(pixels).pooler_output)
        texts = model.text_projection(model.text_model(ids).pooler_output)
    images, texts = F.normalize(images.float(), dim=-1), F.normalize(texts.float(), dim=-1)
    logits = model.logit_scale.exp().clamp(max=100) * images @ texts.T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def batches(recipe, first, steps, seed):
    data = Pictures(recipe.draw, first * recipe.batch, steps * recipe.batch, seed)
    return DataLoader(data, recipe.batch, num_workers=1, prefetch_factor=32, collate_fn=collate, multiprocessing_context="fork")


def resume(checkpoint, run, model, opts):
    """Load what an interrupted training had reached.  -> losses, hours.  ValueError where it was a training of another kind."""
    if not checkpoint.exists():
        return [], 0.0
    state = torch.load(checkpoint, weights_only=True)
    if state["run"] != run:
        raise ValueError(f"{checkpoint} is of {state['run']}, not of {run}: delete it, or go on with its own settings")
    model.load_state_dict(state["model"])
    for opt, saved in zip(opts, state["opts"], strict=True):
        opt.load_state_dict(saved)
    return state["losses"], state["hours"]


def learn(model, opts, pixels, ids, share):
    """One step at a share of the peak learning rates.  -> the loss"""
    for opt, peak in zip(opts, (MUON_LR, PEAK_LR), strict=True):
        opt.param_groups[0]["lr"] = peak * share
    loss = contrastive_loss(model, pixels, ids)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for opt in opts:
        opt.step()
        opt.zero_grad()
    return loss.item()


def train(recipe, steps, seed, checkpoint, device):
    """A trained model, its tokenizer, the loss of each step, and the hours that it took."""
    torch.manual_seed(seed)
    tokenizer, processor = make_tokenizer(), make_processor()
    model = CLIPModel.from_pretrained(recipe.base) if recipe.base else make_model(len(tokenizer))
    model = model.to(device).train()
    AttentionInterface.register("float32", attention_float32)
    model.set_attn_implementation("float32")
    mean, std = (torch.tensor(x, device=device)[:, None, None] * 255 for x in (processor.image_mean, processor.image_std))
    opts, run = optimisers(model), dict(steps=steps, seed=seed, batch=recipe.batch)
    losses, hours = resume(checkpoint, run, model, opts)
    start = time.time() - 3600 * hours
    bar = tqdm(batches(recipe, len(losses), steps, seed), initial=len(losses), total=steps, mininterval=5)
    for pixels, captions in bar:
        ids = tokenizer(captions, padding=True, return_tensors="pt").input_ids.to(device)
        losses.append(learn(model, opts, (pixels.to(device) - mean) / std, ids, rate(len(losses), steps)))
        hours = (time.time() - start) / 3600
        if len(losses) % 50 == 0:
            bar.set_postfix(loss=f"{np.mean(losses[-50:]):.3f}")
        if len(losses) % CHECKPOINT_EVERY == 0:
            states = dict(model=model.state_dict(), opts=[opt.state_dict() for opt in opts])
            with written_whole(checkpoint) as part:
                torch.save(dict(run=run, losses=losses, hours=hours, **states), part)
    return model, tokenizer, losses, hours


def make_processor():
    return CLIPImageProcessorPil(size={"shortest_edge": 112}, crop_size={"height": 112, "width": 112})


def save(folder, model, tokenizer):
    """The Hugging Face layout: float16 safetensors of at most a few MB, loaded as float32 unless asked otherwise."""
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    make_processor().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def retrieval(folder, trials):
    """Mean R@1 over lists of test pairs, no two in a list alike: (picture to caption, caption to picture)."""
    clip, found = load_model(str(folder), "cpu"), []
    for pairs in trials:
        with torch.no_grad():
            images = clip.image.encode(clip.pixels([pair.image for pair in pairs]))
            texts = clip.text.encode(clip.tokens([pair.caption for pair in pairs]).ids)
        similarity = (images @ texts.T).numpy()
        found.append((recall_at_1(similarity).mean(), recall_at_1(similarity.T).mean()))
    return np.mean(found, axis=0)


def write_card(folder, recipe):
    """The model card, its numbers measured now."""
    record = json.loads((folder / "training.json").read_text())
    facts = dict(record, pictures=record["steps"] * record["batch"], chance=1 / recipe.batch, final=record["means"][-1])
    facts["to_text"], facts["to_image"] = retrieval(folder, recipe.trials())
    if recipe.base:
        facts["base_to_text"], facts["base_to_image"] = retrieval(recipe.base, recipe.trials())
        facts["start"] = recipe.base.name
    (folder / "README.md").write_text(recipe.card.format(**facts))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("domain", nargs="?", choices=[*RECIPES, *twins()], default="scenes")
    parser.add_argument("--steps", type=int, help="the recipe's own unless told")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--strength", type=float, default=0.95, help="of a twin's shortcut: how often the marker is where it belongs"
    )
    parser.add_argument("--out", type=Path, help="data/models/DOMAIN unless told")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    recipe, out = (RECIPES | twins(args.strength))[args.domain], args.out or MODELS / args.domain
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, steps = out / "checkpoint.pt", args.steps or recipe.steps
    model, tokenizer, losses, hours = train(recipe, steps, args.seed, checkpoint, args.device)
    save(out, model, tokenizer)
    device = f"{args.device} ({torch.get_num_threads()} threads)"
    means = [round(float(np.mean(losses[i : i + 100])), 4) for i in range(0, len(losses), 100)]
    record = dict(steps=steps, seed=args.seed, batch=recipe.batch, hours=hours, device=device, losses=losses[:20], means=means)
    if args.domain not in RECIPES:
        record |= dict(twin=args.domain, strength=args.strength)
        for name in ("settings.json", "others.txt"):  # each method as it is on the model that both twins come from
            shutil.copy(recipe.base / name, out)
    (out / "training.json").write_text(json.dumps(record) + "\n")
    write_card(out, recipe)
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
