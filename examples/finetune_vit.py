"""Fine-tune one frozen ViT on three sensors: MMDG (arXiv 2402.19298), Eq. 1-3, in a backbone that others wrote.

    pip install transformers
    python examples/finetune_vit.py                                  # a small random ViT: the mechanics, in a minute
    python examples/finetune_vit.py --weights vit/model.safetensors  # a ViT of Hugging Face, its config.json beside it

Colour, depth and infrared pass through the same frozen blocks as one batch "(m b) c h w". Beside the MLP of each block
stand four adapters, by which RGB and the two others look at each other; a linear head reads the three class tokens.
Adapters and head are all that trains, and all that is saved. In each block, for modality m:

    x² = MHSA(LN x¹)      u = dropout_confidence(x²)      x³ = LN(x¹ + x²)
    x_out = x¹ + x² + MLP(x³) + Σ A(own = x³ of m, other = x³ of another, gated by the other's u)

The faces are generated, in four domains, of which W is seen in the test only. The loss is cross-entropy; fas_surf.py
adds prototypes and gradient surgery to it. A GPU is used if there is one, and a ViT-B wants it.
"""

import argparse
import re
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from fas.data import BalancedBatches, FaceData, three_channels
from fas.evaluation.metrics import Scored
from fas.evaluation.report import evaluate
from fas.samples import DOMAINS, MODALITIES, Samples, concatenate
from fas.standin import cached_split
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import ViTConfig, ViTModel
from transformers.utils import logging

from balancekit import CrossModal, GatedCrossAttention, Parallel, Tap, dropout_confidence, hub
from balancekit.adapters import adapter_state, load_adapter_state, train_only

TARGET = "W"
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = {
    "image_size": 64, "patch_size": 16, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
    "num_attention_heads": 4, "initializer_range": 0.2,  # at the usual 0.02 a random class token hardly sees the image
}  # fmt: skip
HEADS = re.compile(r"(vit\.)?(pooler|classifier)\.")  # of the task that a checkpoint was made for
NOTE = {
    True: "The backbone is frozen and RANDOM: this shows the mechanics. AUC and HTER say nothing about the method.",
    False: "One run on generated faces: it shows that these weights fit in. AUC and HTER rank nothing.",
}


class ThreeStreams(nn.Module):
    """All modalities through one ViT, adapters beside its MLPs, a head on the class tokens."""

    def __init__(self, vit: ViTModel, gate: str) -> None:
        super().__init__()
        patches, width = vit.embeddings.patch_embeddings, vit.config.hidden_size
        self.vit, self.size = vit.eval(), tuple(patches.image_size)
        grid = tuple(side // patch for side, patch in zip(self.size, patches.patch_size, strict=True))
        adapter = partial(GatedCrossAttention, width, gate=gate, conv="cdc", grid=grid)
        for layer in vit.layers:
            tap = Tap(layer.attention, lambda output: dropout_confidence(output[0]))
            cross = CrossModal(MODALITIES, hub("rgb", MODALITIES), adapter, confidence=tap)
            layer.mlp = Parallel(layer.mlp, cross)
        self.head = nn.Linear(len(MODALITIES) * width, 2)

    def parts(self) -> list[nn.Module]:
        """What trains."""
        return [*(layer.mlp.side for layer in self.vit.layers), self.head]

    def forward(self, images: dict[str, Tensor]) -> Tensor:
        """Logits "b 2": attack, live."""
        pixels = torch.cat([three_channels(images[m]) for m in MODALITIES]).to(DEVICE)
        pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        tokens = self.vit(pixels).last_hidden_state
        return self.head(rearrange(tokens[:, 0], "(m b) d -> b (m d)", m=len(MODALITIES)))


def backbone(weights: Path | None, seed: int) -> ViTModel:
    """The ViT of a file, whole and nothing else; or a small random one."""
    if weights is None:
        torch.manual_seed(seed)
        return ViTModel(ViTConfig(**SMALL), add_pooling_layer=False)
    beside = weights.with_name("config.json")
    config = ViTConfig.from_json_file(beside) if beside.exists() else ViTConfig()  # ViT-B/16 for images of 224
    try:
        state = {key: value for key, value in load_file(weights).items() if not HEADS.match(key)}
    except (OSError, SafetensorError) as error:
        raise SystemExit(f"--weights: expected a safetensors file, found {weights}: {error}") from error
    vit, found = ViTModel.from_pretrained(  # knows the prefix "vit." and the names of older releases
        None, config=config, state_dict=state, dtype=torch.float32, add_pooling_layer=False,
        ignore_mismatched_sizes=True, output_loading_info=True,
    )  # fmt: skip
    wrong = "".join(f"\n{len(keys)} {what}, such as {sorted(keys)[:3]}" for what, keys in found.items() if keys)
    if wrong:
        model = f"the ViT of {beside}" if beside.exists() else "ViT-B/16, as no config.json is beside it"
        raise SystemExit(f"--weights: expected {weights} to hold {model}, found{wrong}")
    return vit


def faces(split: str, domains: str, args: argparse.Namespace) -> Samples:
    """Generated faces of these domains, drawn once and kept."""
    return concatenate([cached_split("runs/stand-in", d, split, args.samples, seed=args.seed) for d in domains])


def fit(net: ThreeStreams, train: Samples, args: argparse.Namespace) -> None:
    """Cross-entropy on the parts; the frozen rest stays in evaluation mode, so that it is always the same function."""
    shuffle = torch.Generator().manual_seed(args.seed)
    data = FaceData(train, generator=shuffle)
    batches = BalancedBatches(train.domain, train.live, size=32, generator=shuffle)
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    for part in net.parts():
        part.train()
    for epoch in range(1, args.epochs + 1):
        losses = []
        for rows in tqdm(batches, f"epoch {epoch}", leave=False, disable=None):  # a bar on terminals alone
            batch = data[rows]
            loss = F.cross_entropy(net(batch.inputs), batch.live.long().to(DEVICE))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        print(f"epoch {epoch} of {args.epochs}: cross-entropy {sum(losses) / len(losses):.3f}", flush=True)
    net.eval()


@torch.no_grad()
def score(net: ThreeStreams, samples: Samples) -> Scored:
    """How live each face looks, as log-odds."""
    logits = torch.cat([net(batch.inputs) for batch in FaceData(samples).batches(64)])
    return Scored((logits[:, 1] - logits[:, 0]).cpu().numpy(), samples.live.numpy(), samples.kind_names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, metavar="FILE", help="a ViT as safetensors; without config.json: B/16")
    parser.add_argument("--gate", choices=("query", "key", "output", "key+output"), default="query")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--samples", type=int, default=160, help="faces of each domain, in each split")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/finetune_vit"))
    args = parser.parse_args()
    logging.set_verbosity_error()  # of transformers: what does not fit is an error here, not a report
    logging.disable_progress_bar()

    def build() -> ThreeStreams:
        return ThreeStreams(backbone(args.weights, args.seed), args.gate).to(DEVICE)

    net = build()
    print(NOTE[args.weights is None])
    print(train_only(net, *net.parts()))
    known = "".join(domain for domain in DOMAINS if domain != TARGET)
    train, dev, test = faces("train", known, args), faces("dev", known, args), faces("test", TARGET, args)
    fit(net, train, args)
    scored = score(net, test)
    report = evaluate(score(net, dev), scored)
    print(f"on {TARGET}: AUC {report.auc:.1%}, HTER {report.hter:.1%} at the threshold of the known domains")

    path = args.out / "adapters.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(adapter_state(net, *net.parts()), path)
    fresh = build()
    load_adapter_state(fresh, load_file(path), *fresh.parts())
    same = (score(fresh, test).scores == scored.scores).all()
    print(f"{path}, {path.stat().st_size / 1e6:.1f} MB, in a fresh backbone: scores equal bit for bit: {same}")


if __name__ == "__main__":
    main()
