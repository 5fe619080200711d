"""Short runs that chose the painter's design: python tests/benchmarks/pilots_emoji.py [name ...]

Each is `steps` training steps from the same seed, the learning rate falling to zero in the last tenth; judged by the
squared error of x_0 at five noise levels (signal over noise 0.03 to 3, the same for every schedule and target) on 192
captioned training pictures with nothing known. Three minutes each on two cores; one seed: small differences are chance.
Writes `emoji_pilots` into report/results.json, one entry a run.
"""

import argparse
import json
import time

import torch
from common import RESULTS, machine, nb, write_results

LEVELS = (0.03, 0.1, 0.3, 1, 3)  # sqrt(alpha_bar / (1 - alpha_bar))
PILOTS = {
    "x_0, shift 2, fold 4, learning rate 1e-3": {},
    "v instead of x_0": {"target": "v"},
    "no shift": {"shift": 1.0},
    "learning rate 5e-4": {"lr": 5e-4},
    "learning rate 2e-3": {"lr": 2e-3},
    "fold 2, with one more level": {"fold": 2, "widths": [32, 64, 128, 256], "steps": 230},
}


@torch.no_grad()
def errors(model, schedule, target, x_0, eps, text):
    """Mean squared error of the x_0 estimate at each of LEVELS, by the averaged weights."""
    result = []
    for level in LEVELS:
        snr = schedule.alpha_bar[1:] / (1 - schedule.alpha_bar[1:])
        t = int((snr - level**2).abs().argmin()) + 1
        x_t, found = schedule.q_sample(x_0, t, eps), []
        for i in range(0, len(x_0), 64):
            part = nb.Text(*(value[i : i + 64] for value in text))
            said = model(x_t[i : i + 64], torch.full((64,), t / schedule.T), part)
            noise = nb.eps_from(target, schedule, said, x_t[i : i + 64], t)
            found.append(nb.x_0_from_eps(schedule, x_t[i : i + 64], t, noise).clamp(-1, 1))
        result.append((torch.cat(found) - x_0).square().mean().item())
    return result


def pilot(data, *, steps=350, batch_size=32, lr=1e-3, target="x_0", shift=2.0, widths=(64, 128, 256), fold=4):
    """Train one variant and return its figures."""
    generator = torch.Generator().manual_seed(9)
    index = torch.randperm(len(data), generator=generator)[:192]
    x_0, captions = nb.emoji_batch(data, index, generator)
    eps, text = torch.randn(x_0.shape, generator=generator), nb.text_encoder()(captions)
    torch.manual_seed(0)
    info = {"kind": "TextUNet", "config": {"widths": list(widths), "fold": fold},
            "schedule": ["cosine", 1000, shift], "target": target}
    model = nb.build_model(info).to(memory_format=torch.channels_last)
    run, loss = nb.Run(model, 0.98), nb.emoji_loss(data, nb.text_encoder(), model.schedule, target)
    begun = time.time()
    for step in nb.training_steps(model, loss, len(data), run, epochs=1, epoch_pictures=steps * batch_size,
                                  batch_size=batch_size, lr=lr, decay="trapezoid", warmup=50):
        print(f"\r{step} of {steps}", end="", flush=True)
    return {"steps": steps, "seconds": time.time() - begun, "weights": nb.count_parameters(model),
            "errors": errors(nb.averaged(model, run), model.schedule, target, x_0, eps, text)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="*", default=list(PILOTS), help="which of: " + "; ".join(PILOTS))
    data = nb.EmojiData()
    for name in parser.parse_args().name:
        figures = pilot(data, **PILOTS[name])
        results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        known = results.get("emoji_pilots", {"runs": {}})
        write_results("emoji_pilots", {"levels": LEVELS, "runs": {**known["runs"], name: figures}, **machine()})
        print(name, json.dumps(figures), flush=True)
