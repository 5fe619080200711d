"""Short runs that chose the painter's design, and its ablation: python tests/benchmarks/pilots_emoji.py [name ...]

Each is 250 training steps of 32 pictures from the same seed, on every fifth training glyph (so that few steps show
whether names are learned), the learning rate falling to zero in the last tenth. Where there is a draft it is trained
first, on the same glyphs and the same text, for 50 epochs as the shipped one. Measured on one picture of each of these
glyphs, with the averaged weights; but for `fill` with nothing of it known:

error    squared error of x_0, summed over five noise levels (signal over noise 0.03 to 3, the same for every schedule)
right    squared error of x_0 at t = T with the picture's own caption
wrong    the same with another glyph's name, colour unchanged: the difference is what the words tell of the subject
named    share of x_0 at t = T nearest to the glyph asked for, among all glyphs of the run on that colour
pairs    the same for held-out pairs of glyph and colour
fill     squared error of x_0 in holes of held-out glyphs without a prompt, summed over the five noise levels

One to three minutes each on two cores; one seed: small differences are chance. Writes `emoji_pilots` into
report/results.json, one entry a run.
"""

import argparse
import json
import time

import torch
from common import RESULTS, machine, nb, write_results
from torch import nn

LEVELS = (0.03, 0.1, 0.3, 1, 3)  # sqrt(alpha_bar / (1 - alpha_bar))
PILOTS = {
    "as shipped": {},
    "without the glance": {"glance": False},
    "glyphs moved": {"data": "moved"},
    "one picture in six a digit": {"digits": 1 / 5},
    "captions dropped one time in ten also in fills": {"loss": {"drop": (0.1, 0.1)}},
    "without the draft": {"draft": False},
    "v instead of x_0": {"target": "v"},
    "schedule without shift": {"shift": 1.0},
    "learning rate 5e-4": {"lr": 5e-4},
    "learning rate 2e-3": {"lr": 2e-3},
    "fold 2, one more level, 130 steps": {"fold": 2, "widths": [32, 64, 128, 256], "steps": 130},
    "text: pooled only": {"words": "pooled"},
    "text: learned embeddings": {"words": "learned"},
    "text: captions shuffled": {"words": "shuffled"},
}


class Moved(nb.EmojiData):
    """The emoji, every training glyph shifted by up to a pixel."""

    def picture(self, glyph, colour, generator=None, moved=True):
        return super().picture(glyph, colour, generator)


class LearnedText(nn.Module):
    """Words learned with the draft, an embedding for each piece of the captions: prompts -> Text. Others are [UNK]."""

    def __init__(self, encoder, captions, width=384):
        super().__init__()
        self.tokenize = encoder.tokenize
        pieces = sorted({piece for caption in captions for piece in self.tokenize(caption)})
        self.row = {piece: i + 1 for i, piece in enumerate(pieces)}
        self.embedding = nn.Embedding(len(pieces) + 1, width)
        nn.init.normal_(self.embedding.weight, std=0.3)  # as large as MiniLM's

    def forward(self, prompts):
        rows = [torch.tensor([self.row.get(piece, 0) for piece in self.tokenize(prompt)]) for prompt in prompts]
        lengths = torch.tensor([len(row) for row in rows])
        keep = torch.arange(int(lengths.max())) < lengths[:, None]
        tokens = self.embedding(nn.utils.rnn.pad_sequence(rows, batch_first=True)) * keep[:, :, None]
        return nb.Text(tokens, keep, tokens.sum(1) / lengths[:, None])


def reader(words, data):
    """What stands in for the text encoder in one run: a function prompts -> Text."""
    text = nb.text_encoder()
    if words == "pooled":
        def pooled(prompts):
            vector = text(prompts).pooled
            return nb.Text(vector[:, None], torch.ones(len(vector), 1, dtype=torch.bool), vector)
        return pooled
    if words == "shuffled":  # every caption belongs to another picture of its batch
        return lambda prompts: text([*prompts[1:], prompts[0]])
    if words == "learned":
        captions = [nb.caption(data.names[i], colour, form) for i in data.train.tolist()
                    for colour in (None, *nb.COLOURS) for form in range(3)]
        digits = [nb.caption(f"handwritten {n}", colour, form) for n in nb.NUMBERS
                  for colour in (None, *nb.COLOURS) for form in range(3)]
        return LearnedText(text.encoder, captions + digits)
    return text


def train(model, loss, n, *, steps, ema=0.98, **settings):
    """Run the project's loop on n pictures and leave the averaged weights in the model."""
    run = nb.Run(model, ema)
    for step in nb.training_steps(model, loss, n, run, epochs=1, epoch_pictures=steps * 32, batch_size=32,
                                  decay="trapezoid", **settings):
        print(f"\r{step} of {steps}   ", end="", flush=True)
    model.load_state_dict(run.ema.state)
    return model.eval()


def with_draft(text, data):
    """The reader `text`, with a draft that is trained here; a `LearnedText` learns with it and is left as it is."""
    torch.manual_seed(0)
    draft, settings = nb.Draft(), nb.RECIPES["draft"]["settings"]
    if isinstance(text, nn.Module):
        draft.words = text  # so that it is trained too
    steps = settings["epochs"] * (len(data) // 32)
    train(draft, nb.draft_loss(data, text), len(data), steps=steps, lr=settings["lr"], warmup=50)

    @torch.no_grad()
    def read(prompts):
        words = text(prompts)
        return words._replace(draft=draft(words))

    return read


def estimate(model, text, x_0, captions, t, mask=None):
    """The clipped estimate of x_0 at step t, with nothing known but what mask leaves; noise from seed 9."""
    mask = torch.ones_like(x_0[:, :1]) if mask is None else mask
    x_t, found = model.schedule.q_sample(x_0, t, torch.randn(x_0.shape, generator=torch.Generator().manual_seed(9))), []
    for i in range(0, len(x_0), 64):
        part = x_t[i : i + 64]
        hole, known = mask[i : i + 64], (x_0 * (1 - mask))[i : i + 64]
        said = model(part, torch.full((len(part),), t / model.schedule.T), text(captions[i : i + 64]), hole, known)
        noise = nb.eps_from(model.info["target"], model.schedule, said, part, t)
        found.append(nb.x_0_from_eps(model.schedule, part, t, noise).clamp(-1, 1))
    return torch.cat(found)


@torch.no_grad()
def figures(model, text, data):
    """The measures of this file's docstring."""
    model.eval()
    generator, names = torch.Generator().manual_seed(9), [data.names[i] for i in data.train]
    snr, result, T = model.schedule.alpha_bar[1:] / (1 - model.schedule.alpha_bar[1:]), {}, model.schedule.T
    for key, held in (("named", False), ("pairs", True)):
        chance = torch.rand(len(data.train), len(nb.COLOURS), generator=generator)
        chance[(data.held_pairs[data.train] != held)] = -1
        chance[:, 0] = -1
        colour = chance.argmax(1)
        colours = [list(nb.COLOURS)[c] for c in colour]
        x_0 = nb.to_model_range(data.picture(data.train, colour))
        captions = [nb.caption(*words) for words in zip(names, colours, strict=True)]
        guess, hits = estimate(model, text, x_0, captions, T), 0
        for c in colour.unique():
            every = nb.to_model_range(data.picture(data.train, c.expand(len(data.train)))).flatten(1)
            mine = (colour == c).nonzero()[:, 0]
            hits += (torch.cdist(guess[mine].flatten(1), every).argmin(1) == mine).sum().item()
        result[key] = hits / len(data.train)
        if not held:
            other = [nb.caption(*words) for words in zip([*names[1:], names[0]], colours, strict=True)]
            result["right"] = (guess - x_0).square().mean().item()
            result["wrong"] = (estimate(model, text, x_0, other, T) - x_0).square().mean().item()
            steps = [int((snr - level**2).abs().argmin()) + 1 for level in LEVELS]
            result["errors"] = [(estimate(model, text, x_0, captions, t) - x_0).square().mean().item() for t in steps]
    x_0 = nb.to_model_range(data.picture(data.held_out, data.held_out % len(nb.COLOURS)))
    mask = nb.make_masks("blobs", len(x_0), generator=generator, ratio=(0.2, 0.5))
    nothing = [""] * len(x_0)
    result["fill"] = sum((mask * (estimate(model, text, x_0, nothing, t, mask) - x_0).square()).sum().item() / 3
                         for t in steps) / mask.sum().item()
    return result


def pilot(data, *, steps=250, lr=1e-3, target="x_0", shift=2.0, words="tokens", digits=1, loss=None, **config):
    """Train one variant and return its figures. digits: handwritten ones for each glyph; loss: options of `emoji_loss`;
    config: of `TextUNet`."""
    info = nb.RECIPES["emoji"]["info"]
    info = {**info, "config": {**info["config"], **config}, "schedule": ["cosine", 1000, shift], "target": target}
    for form in range(3):  # encoded beforehand, so that the first run does not pay for all
        nb.text_encoder()([nb.caption(data.names[i], colour, form) for i in data.train.tolist()
                           for colour in (None, *nb.COLOURS)])
    text = reader(words, data)
    text = with_draft(text, data) if config.get("draft", True) else text
    torch.manual_seed(0)
    model, begun = nb.build_model(info).to(memory_format=torch.channels_last), time.time()
    n = len(data.train) + round(digits * len(data.train))
    train(model, nb.emoji_loss(data, text, model.schedule, target, **loss or {}), n, steps=steps, lr=lr, warmup=50)
    seconds = time.time() - begun
    # the shuffled run is asked with the captions as they are: it has learned no tie, so none can be found
    if words == "shuffled":
        shuffled = text
        def text(prompts):
            return shuffled([prompts[-1], *prompts[:-1]])
    return {"steps": steps, "seconds": seconds, "weights": nb.count_parameters(model), **figures(model, text, data)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", default=list(PILOTS), help="which of: " + "; ".join(PILOTS))
    options = parser.parse_args()
    if unknown := set(options.name) - set(PILOTS):
        parser.error(f"no pilot {sorted(unknown)}; there are {'; '.join(PILOTS)}")
    for name in options.name:
        settings = dict(PILOTS[name])
        data = Moved() if settings.pop("data", None) else nb.EmojiData()
        data.train = data.train[::5]
        found = pilot(data, **settings)
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        known = results.get("emoji_pilots", {"runs": {}})
        write_results("emoji_pilots", {"levels": LEVELS, "glyphs": len(data.train),
                                       "runs": {**known["runs"], name: found}, **machine()})
        print(name, json.dumps(found), flush=True)
