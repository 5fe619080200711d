"""Short runs that chose the painter's design, and its ablation: python tests/benchmarks/pilots_emoji.py [name ...]

Each is 250 training steps of 32 pictures from the same seed, on every fifth training glyph (so that few steps show
whether names are learned), the learning rate falling to zero in the last tenth. Measured on one picture of each of
these glyphs, nothing of it known, with the averaged weights:

error    squared error of x_0, summed over five noise levels (signal over noise 0.03 to 3, the same for every schedule)
right    squared error of x_0 at t = T with the picture's own caption
wrong    the same with another glyph's name, colour unchanged: the difference is what the words tell of the subject
named    share of x_0 at t = T nearest to the glyph asked for, among all glyphs of the run on that colour
pairs    the same for held-out pairs of glyph and colour

Two to three minutes each on two cores; one seed: small differences are chance. Writes `emoji_pilots` into
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
    "without the draft": {"draft": 0},
    "without the draft, text unscaled": {"draft": 0, "text_scale": 1.0},
    "text unscaled": {"text_scale": 1.0},
    "v instead of x_0": {"target": "v"},
    "schedule without shift": {"shift": 1.0},
    "learning rate 5e-4": {"lr": 5e-4},
    "learning rate 2e-3": {"lr": 2e-3},
    "fold 2, one more level, 130 steps": {"fold": 2, "widths": [32, 64, 128, 256], "steps": 130},
    "widths 96, 192, 384, 120 steps": {"widths": [96, 192, 384], "steps": 120},
    "text: pooled only": {"words": "pooled"},
    "text: learned embeddings": {"words": "learned"},
    "text: captions shuffled": {"words": "shuffled"},
}


class LearnedText(nn.Module):
    """Words learned from nothing, an embedding for each piece of the captions: prompts -> Text. Others are [UNK]."""

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


def estimate(model, text, x_0, captions, t):
    """The clipped estimate of x_0 at step t with nothing known; noise from seed 9."""
    x_t, found = model.schedule.q_sample(x_0, t, torch.randn(x_0.shape, generator=torch.Generator().manual_seed(9))), []
    for i in range(0, len(x_0), 64):
        part = x_t[i : i + 64]
        said = model(part, torch.full((len(part),), t / model.schedule.T), text(captions[i : i + 64]))
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
    return result


def pilot(data, *, steps=250, batch_size=32, lr=1e-3, target="x_0", shift=2.0, words="tokens", **config):
    """Train one variant and return its figures."""
    torch.manual_seed(0)
    recipe = nb.RECIPES["emoji"]["info"]
    info = {"kind": "TextUNet", "config": {**recipe["config"], **config}, "schedule": ["cosine", 1000, shift],
            "target": target}
    model, text = nb.build_model(info).to(memory_format=torch.channels_last), reader(words, data)
    if isinstance(text, nn.Module):
        model.words = text  # so that it is trained too
    run, loss = nb.Run(model, 0.98), nb.emoji_loss(data, text, model.schedule, target)
    for form in range(3):  # encoded beforehand, so that the first run does not pay for all
        nb.text_encoder()([nb.caption(data.names[i], colour, form) for i in data.train.tolist()
                           for colour in (None, *nb.COLOURS)])
    begun = time.time()
    for step in nb.training_steps(model, loss, len(data), run, epochs=1, epoch_pictures=steps * batch_size,
                                  batch_size=batch_size, lr=lr, decay="trapezoid", warmup=50):
        print(f"\r{step} of {steps}", end="", flush=True)
    model.load_state_dict(run.ema.state)
    seconds = time.time() - begun
    # the shuffled run is asked with the captions as they are: it has learned no tie, so none can be found
    asked = nb.text_encoder() if words == "shuffled" else text
    return {"steps": steps, "seconds": seconds, "weights": nb.count_parameters(model), **figures(model, asked, data)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", default=list(PILOTS), help="which of: " + "; ".join(PILOTS))
    options = parser.parse_args()
    if unknown := set(options.name) - set(PILOTS):
        parser.error(f"no pilot {sorted(unknown)}; there are {'; '.join(PILOTS)}")
    data = nb.EmojiData()
    data.train = data.train[::5]
    for name in options.name:
        found = pilot(data, **PILOTS[name])
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        known = results.get("emoji_pilots", {"runs": {}})
        write_results("emoji_pilots", {"levels": LEVELS, "glyphs": len(data.train),
                                       "runs": {**known["runs"], name: found}, **machine()})
        print(name, json.dumps(found), flush=True)
