"""Healthy configurations that guards have to leave in peace: usual models, and benign look-alikes.

Each function takes a seed and returns what `dltool.guards.check` takes. Most are what a stranger
would write, without stating any fact; where a fact is stated, the look-alike cannot be told apart
without it.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from dltool.guards import Facts
from dltool.guards.planted import worlds

HEALTHY: dict[str, Callable[[int], dict]] = {}


def healthy(make):
    """Register a configuration by its function's name."""
    HEALTHY[make.__name__.replace("_", "-")] = make
    return make


def given(model, batch, loss=F.cross_entropy, optimizer=None, rate=1e-3, **others):
    """Return the arguments of `check`; Adam where no optimizer is named."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=rate)
    return {"model": model, "batch": batch, "loss": loss, "optimizer": optimizer, **others}


def images(seed, channels=1, side=16, count=32, classes=10):
    """Return standardised pictures and labels."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(count, channels, side, side, generator=stream)
    return x, torch.randint(0, classes, (count,), generator=stream)


def columns(seed, width=12, count=64, classes=3):
    """Return standardised columns and labels that depend on them."""
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=stream)
    return x, (x @ torch.randn(width, classes, generator=stream)).argmax(1)


def mlp(*widths, act=nn.ReLU):
    """Return linear layers with activations between."""
    layers = []
    for one, two in itertools.pairwise(widths):
        layers += [nn.Linear(one, two), act()]
    return nn.Sequential(*layers[:-1])


def made(seed, make):
    """Build a model from a seed."""
    torch.manual_seed(seed)
    return make()


def of_world(world):
    """Return a planted module's healthy world as arguments."""
    return given(world.model, world.batch(), world.loss, world.optimizer, facts=world.facts)


# ---- usual models ----------------------------------------------------------------------------

for _name, _world in {
    "cnn-digits": worlds.pictures,
    "rows": worlds.rows,
    "tags": worlds.tags,
    "encoder": worlds.texts,
    "lstm": lambda seed: worlds.texts(seed, kind="lstm"),
    "gpt": worlds.stream,
}.items():
    HEALTHY[_name] = lambda seed, _world=_world: of_world(_world(seed))


def _vision(name, channels=3, side=32, classes=10, **settings):
    def make(seed):
        build = getattr(torchvision.models, name)
        model = made(seed, lambda: build(weights=None, num_classes=classes, **settings))
        return given(model, images(seed, channels, side, 16, classes))

    HEALTHY[name.replace("_", "-")] = make


_vision("resnet18")
_vision("mobilenet_v2")
_vision("squeezenet1_1", side=64)
_vision("shufflenet_v2_x0_5", side=64)
_vision("convnext_tiny", side=32)


def _plain(name, make, batch=columns, **others):
    def build(seed):
        return given(made(seed, make), batch(seed), **others)

    HEALTHY[name] = build


def _flat(*layers):
    return lambda: nn.Sequential(nn.Flatten(), *[layer() for layer in layers])


for _act in (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus):
    _plain(f"mlp-{_act.__name__.lower()}", lambda act=_act: mlp(12, 32, 32, 3, act=act))
_plain("mlp-deep", lambda: mlp(12, 64, 64, 64, 64, 64, 3))
_plain("mlp-wide", lambda: mlp(12, 1024, 3))
_plain(
    "mlp-batchnorm",
    lambda: nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 3)),
)
_plain(
    "mlp-layernorm",
    lambda: nn.Sequential(nn.Linear(12, 32), nn.LayerNorm(32), nn.ReLU(), nn.Linear(32, 3)),
)
_plain(
    "mlp-dropout",
    lambda: nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 3)),
)
_plain("logistic", lambda: nn.Linear(12, 3))
_plain(
    "lenet-sigmoid",
    lambda: nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Sigmoid(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Sigmoid(),
        nn.Flatten(),
        nn.Linear(16 * 16, 120),
        nn.Sigmoid(),
        nn.Linear(120, 84),
        nn.Sigmoid(),
        nn.Linear(84, 10),
    ),
    images,
)
_plain(
    "groupnorm",
    lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3),
        nn.GroupNorm(4, 16),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    ),
    images,
)
_plain(
    "instancenorm",
    lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3), nn.InstanceNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 196, 10)
    ),
    images,
)
_plain(
    "maxpool-odd",
    lambda: nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10)
    ),
    images,
)


# ---- losses and outputs ----------------------------------------------------------------------


@healthy
def log_softmax_and_cross_entropy(seed):
    """A log-softmax is its own log-softmax: nothing is lost."""
    model = made(seed, lambda: nn.Sequential(mlp(12, 32, 3), nn.LogSoftmax(1)))
    return given(model, columns(seed))


@healthy
def nll(seed):
    """Log-probabilities into the loss that takes them."""
    model = made(seed, lambda: nn.Sequential(mlp(12, 32, 3), nn.LogSoftmax(1)))
    return given(model, columns(seed), F.nll_loss)


@healthy
def binary_probabilities(seed):
    """A sigmoid in front of the loss that takes probabilities."""
    x, y = columns(seed)
    model = made(seed, lambda: nn.Sequential(mlp(12, 32, 1), nn.Sigmoid(), nn.Flatten(0)))
    return given(model, (x, (y == 0).float()), F.binary_cross_entropy)


@healthy
def binary_logits(seed):
    """One logit, targets as a column."""
    x, y = columns(seed)
    model = made(seed, lambda: mlp(12, 32, 1))
    return given(model, (x, (y == 0).float()[:, None]), F.binary_cross_entropy_with_logits)


@healthy
def label_smoothing(seed):
    """Smoothed targets: the loss of right answers is not 0."""
    loss = nn.CrossEntropyLoss(label_smoothing=0.3)
    return given(made(seed, lambda: mlp(12, 32, 3)), columns(seed), loss)


@healthy
def class_weights(seed):
    """Weighted classes."""
    loss = nn.CrossEntropyLoss(weight=torch.tensor([0.1, 1.0, 10.0]))
    return given(made(seed, lambda: mlp(12, 32, 3)), columns(seed), loss)


@healthy
def summed_loss(seed):
    """A sum in place of a mean, and a rate that fits it."""
    loss = nn.CrossEntropyLoss(reduction="sum")
    return given(made(seed, lambda: mlp(12, 32, 3)), columns(seed), loss)


@healthy
def focal_loss(seed):
    """Lin et al., 2017."""

    def loss(logits, labels):
        entropy = F.cross_entropy(logits, labels, reduction="none")
        return ((1 - (-entropy).exp()) ** 2 * entropy).mean()

    return given(made(seed, lambda: mlp(12, 32, 3)), columns(seed), loss)


@healthy
def hinge(seed):
    """A margin loss."""
    return given(made(seed, lambda: mlp(12, 32, 3)), columns(seed), F.multi_margin_loss)


@healthy
def mixup(seed):
    """Targets that are shares of classes."""
    x, y = columns(seed)
    soft = 0.7 * F.one_hot(y, 3) + 0.3 * F.one_hot(y.roll(1), 3)
    return given(made(seed, lambda: mlp(12, 32, 3)), (0.7 * x + 0.3 * x.roll(1, 0), soft))


def _regression(name, loss, squeeze=True, offset=0.0):
    def make(seed):
        x, _ = columns(seed)
        y = x[:, 0] * x[:, 1] + offset
        layers = [mlp(12, 32, 1)] + ([nn.Flatten(0)] if squeeze else [])
        return given(made(seed, lambda: nn.Sequential(*layers)), (x, y), loss)

    HEALTHY[name] = make


_regression("mse", F.mse_loss)
_regression("l1", F.l1_loss)
_regression("huber", F.huber_loss)
_regression("mse-offset", F.mse_loss, offset=20.0)
_regression("mse-squeezed-in-loss", lambda out, y: F.mse_loss(out[:, 0], y), squeeze=False)


@healthy
def positive_targets(seed):
    """A softplus for targets above 0."""
    x, _ = columns(seed)
    model = made(seed, lambda: nn.Sequential(mlp(12, 32, 1), nn.Softplus(), nn.Flatten(0)))
    return given(model, (x, x[:, 0].abs() + 0.1), F.mse_loss)


@healthy
def negative_log_density(seed):
    """A Gaussian with its own spread: the loss goes below 0."""
    x, _ = columns(seed)

    def loss(out, y):
        return (out[:, 1] + 0.5 * (y - out[:, 0]) ** 2 * (-2 * out[:, 1]).exp()).mean()

    return given(made(seed, lambda: mlp(12, 32, 2)), (x, 0.05 * x[:, 0]), loss)


@healthy
def segmentation(seed):
    """A class for every pixel."""
    x, _ = images(seed)
    model = made(
        seed,
        lambda: nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1)
        ),
    )
    return given(model, (x, (x[:, 0] > 0).long() + (x[:, 0] > 1)))


# ---- starts and freezes ----------------------------------------------------------------------


class Residual(nn.Module):
    """Blocks whose last layer starts at 0 (Goyal et al., 2017)."""

    def __init__(self, drop=0.0):
        super().__init__()
        self.drop = drop
        self.stem = nn.Linear(12, 32)
        self.blocks = nn.ModuleList(mlp(32, 32, 32) for _ in range(4))
        for block in self.blocks:
            nn.init.zeros_(block[-1].weight)
            nn.init.zeros_(block[-1].bias)
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            if self.training and self.drop and float(torch.rand(())) < self.drop:
                continue
            x = x + block(F.relu(x))
        return self.head(x)


_plain("zero-init-residual", Residual)
_plain("stochastic-depth", lambda: Residual(0.3))


def _zeroed(model):
    nn.init.zeros_(model[-1].weight)
    nn.init.zeros_(model[-1].bias)
    return model


_plain("zero-init-head", lambda: _zeroed(mlp(12, 32, 3)))
_plain("zero-init-logistic", lambda: _zeroed(nn.Sequential(nn.Linear(12, 3))))


class LoRA(nn.Module):
    """A frozen layer with a low-rank change whose B starts at 0."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(12, 32).requires_grad_(False)
        self.a = nn.Parameter(torch.randn(4, 12) * 0.1)
        self.b = nn.Parameter(torch.zeros(32, 4))
        self.head = nn.Linear(32, 3)

    def forward(self, x):
        return self.head(F.relu(self.base(x) + x @ self.a.T @ self.b.T))


_plain("lora", LoRA)


@healthy
def frozen_backbone(seed):
    """Frozen layers whose measured batch normalisation is in eval mode."""

    class Frozen(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Linear(12, 32), nn.BatchNorm1d(32), nn.ReLU())
            self.body(torch.randn(64, 12))
            self.body.requires_grad_(False)
            self.head = nn.Linear(32, 3)

        def train(self, mode=True):
            super().train(mode)
            self.body.eval()
            return self

        def forward(self, x):
            return self.head(self.body(x))

    model = made(seed, Frozen)
    return given(model, columns(seed), optimizer=torch.optim.Adam(model.head.parameters(), 1e-3))


@healthy
def fine_tuning_groups(seed):
    """The head ten times as fast as the rest."""
    model = made(seed, lambda: mlp(12, 32, 32, 3))
    groups = [{"params": model[:-1].parameters(), "lr": 1e-4}, {"params": model[-1].parameters()}]
    return given(model, columns(seed), optimizer=torch.optim.AdamW(groups, lr=1e-3))


@healthy
def tied_weights(seed):
    """Embedding and output share a matrix, drawn small."""

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 32)
            nn.init.normal_(self.words.weight, std=0.02)
            self.places = nn.Parameter(torch.randn(16, 32) * 0.02)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            self.norm = nn.LayerNorm(32)
            self.out = nn.Linear(32, 50, bias=False)
            self.out.weight = self.words.weight

        def forward(self, ids):
            mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1])
            x = self.layer(self.words(ids) + self.places[: ids.shape[1]], mask)
            return self.out(self.norm(x))

    return given(made(seed, Tied), next_tokens(seed), worlds.next_token)


def next_tokens(seed, length=16, vocabulary=50):
    """Return tokens and the next ones."""
    stream = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, vocabulary, (16, length + 1), generator=stream)
    return ids[:, :-1], ids[:, 1:]


@healthy
def warm_up(seed):
    """A rate that begins at 0."""
    model = made(seed, lambda: mlp(12, 32, 3))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(step / 100, 1))
    return given(model, columns(seed), optimizer=optimizer)


@healthy
def one_cycle(seed):
    """A rate that begins at a 25th of its peak."""
    model = made(seed, lambda: mlp(12, 32, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, 100)
    return given(model, columns(seed), optimizer=optimizer)


@healthy
def sgd_with_decay(seed):
    """The usual recipe of pictures."""
    world = worlds.pictures(seed)
    optimizer = torch.optim.SGD(
        world.model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    return given(world.model, world.batch(), optimizer=optimizer)


@healthy
def ema_copy(seed):
    """A model that carries an average of itself, which nothing trains."""

    class Averaged(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(12, 32, 3)
            self.average = copy.deepcopy(self.net).requires_grad_(False)

        def forward(self, x):
            return self.net(x)

    return given(made(seed, Averaged), columns(seed))


# ---- sequences -------------------------------------------------------------------------------


@healthy
def bidirectional(seed):
    """An LSTM of two directions over packed texts."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(40, 16, padding_idx=0)
            self.cell = nn.LSTM(16, 16, batch_first=True, bidirectional=True)
            self.head = nn.Linear(32, 2)

        def forward(self, ids, sizes):
            packed = nn.utils.rnn.pack_padded_sequence(
                self.words(ids), sizes, batch_first=True, enforce_sorted=False
            )
            _, (last, _) = self.cell(packed)
            return self.head(torch.cat([last[0], last[1]], 1))

    return given(made(seed, Net), worlds.texts(seed).batch())


@healthy
def masked_lm(seed):
    """Every seventh word is hidden; the model sees both sides."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 32)
            self.places = nn.Embedding(32, 32)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.out = nn.Linear(32, 50)

        def forward(self, ids):
            return self.out(self.layer(self.words(ids) + self.places.weight[: ids.shape[1]]))

    ids, _ = next_tokens(seed, 20)
    hidden = torch.arange(20)[None].expand(16, -1) % 7 == 3
    batch = (ids.masked_fill(hidden, 0), ids.masked_fill(~hidden, -100))
    return given(made(seed, Net), batch, worlds.next_token)


@healthy
def prefix_lm(seed):
    """The first half is seen whole and not scored, the rest is written on."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 32)
            self.places = nn.Embedding(32, 32)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
            self.out = nn.Linear(32, 50)

        def forward(self, ids):
            size = ids.shape[1]
            mask = torch.ones(size, size, dtype=torch.bool).triu(1)
            mask[:, : size // 2] = False
            x = self.words(ids) + self.places.weight[:size]
            return self.out(self.layer(x, mask))

    ids, after = next_tokens(seed, 20)
    after = after.clone()
    after[:, :9] = -100
    return given(made(seed, Net), (ids, after), worlds.next_token)


@healthy
def tagging(seed):
    """A class for every word, from both sides."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.cell = nn.GRU(16, 16, batch_first=True, bidirectional=True)
            self.head = nn.Linear(32, 5)

        def forward(self, ids):
            return self.head(self.cell(self.words(ids))[0])

    ids, _ = next_tokens(seed)
    return given(made(seed, Net), (ids, ids % 5), worlds.next_token)


@healthy
def bag_of_words(seed):
    """fastText: the order does not matter."""
    world = worlds.texts(seed)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(40, 16, padding_idx=0)
            self.head = nn.Linear(16, 2)

        def forward(self, ids, sizes):
            return self.head(self.words(ids).sum(1) / sizes[:, None])

    return given(made(seed, Net), world.batch())


@healthy
def embedding_bag_sparse(seed):
    """Sparse gradients."""
    ids, _ = next_tokens(seed)
    model = made(
        seed, lambda: nn.Sequential(nn.EmbeddingBag(50, 16, sparse=True), nn.Linear(16, 2))
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return given(model, (ids, (ids.sum(1) % 2)), optimizer=optimizer)


@healthy
def text_cnn(seed):
    """Kim, 2014: convolution over words and a maximum."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.words = nn.Embedding(50, 16)
            self.conv = nn.Conv1d(16, 32, 3, padding=1)
            self.head = nn.Linear(32, 2)

        def forward(self, ids):
            return self.head(F.relu(self.conv(self.words(ids).transpose(1, 2))).amax(2))

    ids, _ = next_tokens(seed)
    return given(made(seed, Net), (ids, ids[:, 0] % 2))


@healthy
def time_series(seed):
    """The next value of a series from an LSTM's last state."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(1, 16, batch_first=True)
            self.head = nn.Linear(16, 1)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    time = (
        torch.arange(21) * 0.3
        + torch.rand(32, 1, generator=torch.Generator().manual_seed(seed)) * 6
    )
    series = time.sin()[..., None]
    return given(made(seed, Net), (series[:, :-1], series[:, -1]), F.mse_loss)


class Seq2Seq(nn.Module):
    """A transformer with encoder and decoder; id 0 is the padding."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(50, 32)
        self.places = nn.Parameter(torch.randn(32, 32) * 0.1)
        self.net = nn.Transformer(32, 4, 1, 1, 64, batch_first=True)
        self.out = nn.Linear(32, 50)

    def forward(self, source, fed):
        mask = nn.Transformer.generate_square_subsequent_mask(fed.shape[1]).isinf()
        pads = source == 0
        return self.out(
            self.net(
                self.words(source) + self.places[: source.shape[1]],
                self.words(fed) + self.places[: fed.shape[1]],
                tgt_mask=mask,
                src_key_padding_mask=pads,
                memory_key_padding_mask=pads,
            )
        )


@healthy
def seq2seq(seed):
    """Reverse a text; source padded."""
    source, _ = next_tokens(seed, 12)
    source = source.clone()
    source[::2, 8:] = 0
    goal = source.flip(1)
    fed = torch.cat([torch.ones(16, 1, dtype=torch.int64), goal[:, :-1]], 1)

    def loss(logits, target):
        return F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=0)

    facts = Facts(task="seq2seq", pad=0)
    return given(made(seed, Seq2Seq), (source, fed, goal), loss, facts=facts)


# ---- other kinds of training -----------------------------------------------------------------


@healthy
def autoencoder(seed):
    """A batch that is its own target."""
    x, _ = columns(seed)
    return given(made(seed, lambda: mlp(12, 4, 12)), x, F.mse_loss)


@healthy
def linear_autoencoder(seed):
    """Two linear layers, as stated."""
    x, _ = columns(seed)
    model = made(seed, lambda: nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 12)))
    return given(model, x, F.mse_loss, facts=Facts(linear=True))


@healthy
def variational_autoencoder(seed):
    """Draws its code also in evaluation, as the usual example does."""

    class Vae(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode, self.decode = mlp(12, 32, 8), mlp(4, 32, 12)

        def forward(self, x):
            mean, spread = self.encode(x).chunk(2, 1)
            code = mean + torch.randn_like(mean) * (0.5 * spread).exp()
            return self.decode(code), mean, spread

    def loss(found, x):
        out, mean, spread = found
        return F.mse_loss(out, x) - 0.05 * (1 + spread - mean**2 - spread.exp()).mean()

    x, _ = columns(seed)
    return given(made(seed, Vae), x, loss)


@healthy
def monte_carlo_dropout(seed):
    """Dropout in evaluation, as stated."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(12, 32), nn.Linear(32, 3)

        def forward(self, x):
            return self.last(F.dropout(F.relu(self.first(x)), 0.3))

    return given(made(seed, Net), columns(seed), facts=Facts(stochastic=True))


@healthy
def contrastive(seed):
    """SimCLR: every sample is compared with the others, in the loss."""
    x, _ = columns(seed)

    def step(batch):
        one, two = (
            F.normalize(model(batch[0] + 0.1 * torch.randn_like(batch[0])), dim=1) for _ in "ab"
        )
        return F.cross_entropy(one @ two.T / 0.1, torch.arange(len(one)))

    model = made(seed, lambda: mlp(12, 32, 16))
    found = given(model, (x, torch.arange(64)), None)
    return {**found, "step": step}


@healthy
def gan_generator(seed):
    """A generator's step through a critic that another optimizer trains."""
    generator, critic = made(seed, lambda: mlp(8, 32, 12)), mlp(12, 32, 1)
    noise = torch.randn(32, 8, generator=torch.Generator().manual_seed(seed))

    def step(batch):
        return F.softplus(-critic(generator(batch[0]))).mean()

    return {**given(generator, (noise, noise), None), "step": step}


@healthy
def gan_critic(seed):
    """The critic's step."""
    critic = made(seed, lambda: mlp(12, 32, 1))
    x, _ = columns(seed)
    batch = (
        torch.cat([x, torch.randn(64, 12)]),
        torch.cat([torch.ones(64, 1), torch.zeros(64, 1)]),
    )
    return given(critic, batch, F.binary_cross_entropy_with_logits)


@healthy
def graph(seed):
    """A graph convolution: neighbours are meant to matter."""
    x, y = columns(seed)
    stream = torch.Generator().manual_seed(seed)
    near = (torch.rand(64, 64, generator=stream) < 0.1).float() + torch.eye(64)

    class Gcn(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("near", near / near.sum(1, keepdim=True))
            self.first, self.last = nn.Linear(12, 16), nn.Linear(16, 3)

        def forward(self, x):
            return self.last(self.near @ F.relu(self.near @ self.first(x)))

    return given(made(seed, Gcn), (x, y))


@healthy
def value_network(seed):
    """A deep Q-network's step on a replay batch."""
    model, target = made(seed, lambda: mlp(12, 32, 3)), mlp(12, 32, 3).requires_grad_(False)
    x, action = columns(seed)

    def step(batch):
        value = model(batch[0]).gather(1, batch[1][:, None])[:, 0]
        with torch.no_grad():
            goal = 1 + 0.9 * target(batch[0].flip(0)).amax(1)
        return F.smooth_l1_loss(value, goal)

    return {**given(model, (x, action), None), "step": step}


# ---- odd data --------------------------------------------------------------------------------


@healthy
def imbalance(seed):
    """One of a hundred."""
    x, _ = columns(seed)
    return given(made(seed, lambda: mlp(12, 32, 2)), (x, (torch.arange(64) == 5).long()))


@healthy
def label_noise(seed):
    """A fifth of the labels is drawn anew."""
    x, y = columns(seed)
    y = torch.where(torch.rand(64) < 0.2, torch.randint(0, 3, (64,)), y)
    return given(made(seed, lambda: mlp(12, 32, 3)), (x, y))


@healthy
def one_hot_columns(seed):
    """Categories as columns of 0 and 1."""
    stream = torch.Generator().manual_seed(seed)
    x = F.one_hot(torch.randint(0, 30, (64,), generator=stream), 30).float()
    return given(made(seed, lambda: mlp(30, 32, 3)), (x, x.argmax(1) % 3))


@healthy
def bytes_scaled_inside(seed):
    """Bytes that the model divides by 255 itself."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp(256, 32, 10)

        def forward(self, x):
            return self.net(x.flatten(1).float() / 255)

    stream = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 256, (32, 1, 16, 16), dtype=torch.uint8, generator=stream)
    return given(made(seed, Scaled), (x, torch.arange(32) % 10))


@healthy
def tiny_batch(seed):
    """Two samples."""
    x, y = columns(seed)
    return given(made(seed, lambda: mlp(12, 32, 3)), (x[:2], y[:2]))


@healthy
def double_precision(seed):
    """float64 throughout."""
    x, y = columns(seed)
    return given(made(seed, lambda: mlp(12, 32, 3).double()), (x.double(), y))


@healthy
def vision_transformer(seed):
    """Patches, a class token that starts at 0, positions."""

    class Vit(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(1, 32, 4, 4)
            self.token = nn.Parameter(torch.zeros(1, 1, 32))
            self.places = nn.Parameter(torch.randn(1, 17, 32) * 0.02)
            self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
            self.head = nn.Linear(32, 10)

        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
            return self.head(self.layer(x)[:, 0])

    return given(made(seed, Vit), images(seed))


@healthy
def relu_init_he(seed):
    """He's initialisation."""
    model = made(seed, lambda: mlp(12, 64, 64, 3))
    for layer in model[::2]:
        nn.init.kaiming_normal_(layer.weight)
    return given(model, columns(seed))


@healthy
def orthogonal_rnn(seed):
    """A plain RNN with orthogonal steps."""
    model = made(seed, lambda: Rnn())
    nn.init.orthogonal_(model.cell.weight_hh_l0)
    stream = torch.Generator().manual_seed(seed)
    x = torch.randn(32, 10, 6, generator=stream)
    return given(model, (x, (x[:, -1, 0] > 0).long()))


class Rnn(nn.Module):
    """The last state of a plain RNN."""

    def __init__(self):
        super().__init__()
        self.cell = nn.RNN(6, 32, batch_first=True)
        self.head = nn.Linear(32, 2)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


@healthy
def wide_outputs(seed):
    """A hundred classes, few of them in the batch."""
    x, _ = columns(seed)
    return given(made(seed, lambda: mlp(12, 64, 100)), (x, torch.arange(64) % 7))


@healthy
def diffusion(seed):
    """Predict the noise that was added, a step drawn at random."""
    x, _ = columns(seed)
    model = made(seed, lambda: mlp(13, 64, 12))

    def step(batch):
        time = torch.rand(len(batch[0]), 1)
        noise = torch.randn_like(batch[0])
        mixed = (1 - time).sqrt() * batch[0] + time.sqrt() * noise
        return F.mse_loss(model(torch.cat([mixed, time], 1)), noise)

    return {**given(model, (x, x), None), "step": step}
