"""Training steps a second: ours beside diffusers' UNet2DConditionModel of about as many weights, at 64 px.

python tests/benchmarks/throughput.py [--batch 16] [--rounds 6]

The same batch, tokens and optimiser; one step of each in turn, so that both meet the same moods of the machine; the
ratio is of the medians. The peer is the one whose number of weights is nearest. diffusers' network works on pixels, as
it does by default, in three levels with attention at 32 x 32 and 16 x 16 places; ours on 2 x 2 blocks of pixels, in
four levels with attention at 8 x 8 and 4 x 4: these differences are what is measured. The text
encoder is no part of a step. `share_of_peak`: the floating-point operations
that our step does in a second, of those that a product of two bf16 matrices of 2048 x 2048 does. Writes `throughput`
into report/results.json. Needs tests/benchmarks/requirements.txt.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "report" / "evaluate"))

from common import machine, nb, write_results  # noqa: E402


def theirs(widths):
    """diffusers' network for the same input and text: 7 channels in, 3 out, attention at the two coarser levels."""
    kinds = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    ups = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    return UNet2DConditionModel(
        sample_size=64, in_channels=7, out_channels=3, block_out_channels=widths, down_block_types=kinds,
        up_block_types=ups, layers_per_block=1, cross_attention_dim=384, attention_head_dim=8, norm_num_groups=8)


def nearest_peer(weights):
    """diffusers' network with about as many weights, its widths in proportions like 1 : 2 : 3 or 1 : 1 : 2."""
    widths = [(8 * a, 8 * b, 8 * c) for a in range(4, 13) for b in range(a, 2 * a + 1) for c in range(b, 4 * a + 1)]
    with torch.device("meta"):
        sizes = {w: nb.count_parameters(theirs(w)) for w in widths}
    return theirs(min(widths, key=lambda w: abs(sizes[w] - weights)))


def race(model, options, device):
    """Train the network of `model` and its peer in turns: pictures a second, their ratio, and numbers of weights."""
    ours = model.net
    peer = nearest_peer(nb.count_parameters(ours))
    with torch.no_grad():
        text = model.reader(["a penguin on a pink background"] * options.batch).to(device)
    x = torch.randn(options.batch, 3, 64, 64, device=device)
    mask, t = torch.ones_like(x[:, :1]), torch.rand(options.batch, device=device)

    def our_loss():
        return ours(x, t, nb.Condition(text=text)).float().square().mean()

    def their_loss():
        inputs = torch.cat([x, mask, torch.zeros_like(x)], 1)
        said = peer(inputs, 1000 * t, text.tokens, encoder_attention_mask=text.keep).sample
        return said.float().square().mean()

    contestants = {"ours": (ours, our_loss), "diffusers": (peer, their_loss)}
    seconds, optimisers = {name: [] for name in contestants}, {}
    for name, (model, _) in contestants.items():
        model.to(device, memory_format=torch.channels_last).train()
        optimisers[name] = torch.optim.Adam(model.parameters(), 1e-4)
    for turn in range(options.rounds + 1):
        for name, (_, loss_of) in contestants.items():
            begun = time.perf_counter()
            with nb.autocast_for(device):
                loss = loss_of()
            optimisers[name].zero_grad()
            loss.backward()
            optimisers[name].step()
            if device.type != "cpu":
                getattr(torch, device.type).synchronize()
            if turn:  # the first step of each warms up
                seconds[name].append(time.perf_counter() - begun)
    with FlopCounterMode(display=False) as counter, nb.autocast_for(device):
        our_loss().backward()
    a = torch.randn(2048, 2048, device=device, dtype=torch.bfloat16)
    peaks = []
    for _ in range(10):
        begun = time.perf_counter()
        (a @ a).sum().item()  # asks for the result, so that the work is done
        peaks.append(2 * 2048**3 / (time.perf_counter() - begun))
    rates = {name: options.batch / statistics.median(times) for name, times in seconds.items()}
    return {"pictures_per_second": rates, "ratio": rates["ours"] / rates["diffusers"],
            "share_of_peak": counter.get_total_flops() / options.batch * rates["ours"] / max(peaks),
            "weights": {name: nb.count_parameters(model) for name, (model, _) in contestants.items()}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    torch.manual_seed(0)
    result = race(nb.load_model("painter"), options, nb.default_device())
    print(result, flush=True)
    for part, value in {**result, "batch": options.batch, "rounds": options.rounds, **machine()}.items():
        write_results("throughput", part, value)


if __name__ == "__main__":
    main()
