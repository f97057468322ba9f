"""The models and decoders of `seq2seq` against what they must equal."""

import itertools
import math

import pytest
import torch
from dltool_seq2seq import attention, preflight
from dltool_seq2seq.data import Batch, Pairs, Ragged
from dltool_seq2seq.decode import Search, decode, narrowed, padded, penalised
from dltool_seq2seq.measure import forced
from dltool_seq2seq.model import build, loss_of, mixed, token_losses
from dltool_seq2seq.schedule import rate_factor
from dltool_seq2seq.spec import Spec
from dltool_seq2seq.vocab import BOS, EOS, PAD, UNK
from torch.nn import functional as F

from dltool.errors import ConfigError

SMALL = {
    "source_vocabulary": 9,
    "target_vocabulary": 8,
    "width": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "max_length": 12,
    "heads": 4,
    "feedforward": 32,
}
SPECS = {
    **{
        f"transformer-{norm}-{positions}": Spec(
            "transformer", **SMALL, norm=norm, positions=positions, tied=norm == "pre"
        )
        for norm in ("pre", "post")
        for positions in ("sinusoidal", "learned", "rotary")
    },
    **{
        f"{name}-{kind}-{'both' if both else 'one'}": Spec(
            name, **SMALL, attention=kind, bidirectional=both
        )
        for name in ("rnn", "gru", "lstm")
        for kind in ("none", "additive", "dot", "multiplicative")
        for both in (False, True)
        if name == "lstm" or (kind in ("none", "dot") and both)
    },
}
SOURCES = [[4, 5, 6], [7], [8, 4, 5, 6, 7]]
CPU = torch.device("cpu")


def made(name):
    torch.manual_seed(0)
    return build(SPECS[name]).eval()


@pytest.fixture(params=sorted(SPECS))
def model(request):
    return made(request.param)


def targets(rows=3, size=6):
    return torch.randint(4, 8, (rows, size), generator=torch.Generator().manual_seed(1))


def batch_of(sources, written, batch_size=None):
    return Pairs(
        [("", "")] * len(sources),
        Ragged.of(sources),
        Ragged.of(written),
        batch_size or len(sources),
        0,
        0,
        CPU,
    )


# ---- the models -------------------------------------------------------------------------------


def test_decoding_step_by_step_equals_teacher_forcing(model):
    source, lengths = padded(SOURCES, CPU)
    fed = targets()
    with torch.no_grad():
        whole, state, steps = model(source, lengths, fed), model.start(source, lengths), []
        for place in range(fed.shape[1]):
            logits, state = model.step(fed[:, place : place + 1], state)
            steps.append(logits)
    assert torch.cat(steps, 1) == pytest.approx(whole, abs=2e-6)


@torch.no_grad()
def test_padding_and_neighbours_have_no_influence(model):
    source, lengths = padded(SOURCES, CPU)
    fed = targets()
    together = model(source, lengths, fed)
    longer = model(F.pad(source, (0, 5), value=PAD), lengths, fed)
    other = F.pad(source, (0, 5), value=7)  # whatever stands in the padding
    assert longer == pytest.approx(together, abs=2e-6)
    assert model(other, lengths, fed) == pytest.approx(together, abs=2e-6)
    for row, each in enumerate(SOURCES):
        alone = model(*padded([each], CPU), fed[row : row + 1])
        assert alone == pytest.approx(together[row : row + 1], abs=2e-6)


@pytest.mark.parametrize("training", [True, False])
def test_no_place_sees_a_later_one(model, training):
    source, lengths = padded(SOURCES, CPU)
    fed = targets()
    model.train(training)
    before = model(source, lengths, fed)
    for place in range(1, fed.shape[1]):
        changed = fed.clone()
        changed[:, place:] = 4 + (changed[:, place:] + 1) % 4
        assert torch.equal(model(source, lengths, changed)[:, :place], before[:, :place])
        assert not torch.equal(model(source, lengths, changed)[:, place], before[:, place])


def test_both_directions_of_a_bidirectional_encoder_are_used():
    for name in ("lstm-none-both", "gru-none-both", "rnn-dot-both"):
        model = made(name)
        source, lengths = padded(SOURCES, CPU)
        model(source, lengths, targets()).sum().backward()
        assert all(part.grad.abs().sum() > 0 for part in model.encoder.parameters())


def test_losses_of_a_batch_do_not_depend_on_padding_or_neighbours(model):
    written = [[4, 5], [6, 7, 4, 5], [6]]
    together = next(batch_of(SOURCES, written).batches(0))
    whole = loss_of(model, together, 0.1) * (together.target != PAD).sum()
    apart = 0.0
    for source, target in zip(SOURCES, written, strict=True):
        batch = next(batch_of([source], [target]).batches(0))
        apart = apart + loss_of(model, batch, 0.1) * (batch.target != PAD).sum()
    assert float(apart.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    wider = Batch(
        F.pad(together.source, (0, 4)),
        together.lengths,
        F.pad(together.decoder_input, (0, 4)),
        F.pad(together.target, (0, 4)),
        together.weight,
    )
    padded_loss = loss_of(model, wider, 0.1) * (together.target != PAD).sum()
    assert float(padded_loss.detach()) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_a_batch_may_be_divided_into_pieces_of_rows():
    model = made("gru-dot-both")
    batch = next(batch_of(SOURCES, [[4, 5], [6, 7, 4, 5], [6]]).batches(0))
    whole = float(loss_of(model, batch, 0.0).detach())
    parts = [Batch(*(part[rows] for part in batch)) for rows in (slice(0, 1), slice(1, 3))]
    shares = [float(loss_of(model, part, 0.0).detach()) * len(part.source) / 3 for part in parts]
    assert sum(shares) == pytest.approx(whole, rel=1e-6)


def test_teacher_forced_figures_do_not_depend_on_the_batch(monkeypatch):
    model = made("transformer-pre-sinusoidal")
    pairs = batch_of(SOURCES * 3, [[4, 5], [6, 7, 4, 5], [6]] * 3)
    together = forced(model, pairs)
    monkeypatch.setattr("dltool_seq2seq.measure.EVALUATION_BATCH", 1)
    alone = forced(model, pairs)
    assert together.loss == pytest.approx(alone.loss, rel=1e-6)
    assert (together.right, together.tokens) == (alone.right, alone.tokens) == (alone.right, 30)


def test_label_smoothing_and_padding_as_torch_defines_them():
    logits = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([[4, 5, EOS], [6, EOS, PAD]])
    found = token_losses(logits, target, 0.1)
    assert found[1, 2] == 0
    log = logits.log_softmax(-1)
    by_hand = -(0.9 * log[0, 0, 4] + 0.1 * log[0, 0].mean())
    assert float(found[0, 0]) == pytest.approx(float(by_hand), rel=1e-6)


def test_scheduled_sampling_feeds_the_models_own_answers():
    model = made("lstm-dot-one")
    batch = next(batch_of(SOURCES, [[4, 5], [6, 7, 4, 5], [6]]).batches(0))
    torch.manual_seed(0)
    fed = mixed(model, batch, 1.0)
    own = model(batch.source, batch.lengths, batch.decoder_input).argmax(-1)
    assert (fed[:, 0] == BOS).all()
    assert torch.equal(fed[:, 1:], own[:, :-1])
    assert torch.equal(mixed(model, batch, 0.0), batch.decoder_input)


@torch.no_grad()
def test_attention_weights_are_those_of_the_forward_pass():
    model = made("transformer-pre-rotary")
    source, lengths = padded(SOURCES, CPU)
    weights = model.attention_weights(source, lengths, targets())
    assert weights.shape == (3, 2, 4, 6, 6)
    assert weights.sum(-1) == pytest.approx(torch.ones(3, 2, 4, 6), abs=1e-5)
    assert float(weights[1, ..., 2:].abs().max()) == 0.0
    state = model.start(source, lengths)
    states, _ = model.decoder_layers[0].remember(model.target(targets()), None)
    layer = model.decoder_layers[0]
    mixed_values = attention.join_heads(weights[:, 0] @ state["source_values_0"])
    mask = state["mask"][:, None, None]
    known = layer.cross.attend(
        layer.asks(states), state["source_keys_0"], state["source_values_0"], mask
    )
    assert layer.cross.out(mixed_values) == pytest.approx(known, abs=1e-5)


def test_transformer_has_the_parameters_that_its_layers_add_up_to():
    # d2l's example: 32 wide, 2 layers, 64 inside; 4 E² + 4 E an attention
    spec = Spec("transformer", 200, 300, 32, 2, 2, 64, feedforward=64)
    attend, norm, feed = 4 * 32 * 32 + 4 * 32, 64, 2 * 32 * 64 + 64 + 32
    layers = 2 * (attend + feed + 2 * norm) + 2 * (2 * attend + feed + 3 * norm)
    embeddings, output, ends = 500 * 32, 32 * 300 + 300, 2 * norm
    found = sum(part.numel() for part in build(spec).parameters())
    assert found == layers + embeddings + output + ends


# ---- guards -----------------------------------------------------------------------------------


def checked(model, batch):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return preflight.check(model, optimizer, batch, 8)


def test_a_sound_model_passes_and_is_left_as_it_was(model):
    batch = next(batch_of(SOURCES, [[4, 5], [6, 7, 4, 5], [6]]).batches(0))
    before = {name: part.clone() for name, part in model.state_dict().items()}
    stream = torch.get_rng_state()
    assert [found.code for found in checked(model, batch) if found.severity == "fail"] == []
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())
    assert torch.equal(stream, torch.get_rng_state())
    assert not model.training


def test_a_decoder_that_is_fed_its_label_is_refused():
    batch = next(batch_of(SOURCES, [[4, 5], [6, 7, 4, 5], [6]]).batches(0))
    unshifted = batch._replace(decoder_input=batch.target)
    found = checked(made("transformer-pre-rotary"), unshifted)
    assert [each.code for each in found] == ["G-S02"]


def test_a_causal_mask_that_holds_in_training_alone_is_found(monkeypatch):
    real = attention.MultiHead.attend

    def leaky(self, queries, keys, values, mask=None, *, is_causal=False):
        return real(self, queries, keys, values, mask, is_causal=is_causal and self.training)

    monkeypatch.setattr(attention.MultiHead, "attend", leaky)
    batch = next(batch_of(SOURCES, [[4, 5], [6, 7, 4, 5], [6, 4]]).batches(0))
    found = checked(made("transformer-pre-rotary"), batch)
    assert [each.code for each in found] == ["G-S03"]
    assert "evaluation mode" in found[0].message


def test_an_unmasked_source_is_found(monkeypatch):
    everything = lambda lengths, size: torch.ones(len(lengths), size, dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr("dltool_seq2seq.transformer.valid_mask", everything)
    batch = next(batch_of(SOURCES, [[4, 5], [6, 7, 4, 5], [6]]).batches(0))
    assert "G-S05" in [each.code for each in checked(made("transformer-pre-sinusoidal"), batch)]


# ---- decoding ---------------------------------------------------------------------------------


def plainly(model, source, most):
    """Decode greedily, one sentence at a time, computing the whole prefix at every step."""
    tokens = [BOS]
    while len(tokens) <= most:
        logits = model(*padded([source], CPU), torch.tensor([tokens]))[0, -1].clone()
        logits[[PAD, BOS]] = -math.inf
        picked = int(logits.argmax())
        if picked == EOS:
            break
        tokens.append(picked)
    return tokens[1:]


def many(count=40):
    stream = torch.Generator().manual_seed(3)
    lengths = torch.randint(1, 9, (count,), generator=stream).tolist()
    return [torch.randint(4, 9, (n,), generator=stream).tolist() for n in lengths]


@torch.no_grad()
@pytest.mark.parametrize("name", ["transformer-pre-rotary", "lstm-dot-both", "gru-none-both"])
def test_greedy_with_cache_and_batches_equals_the_plain_way(name):
    model = made(name)
    sources = many()
    for _ in range(40):  # until some answers end early and others do not
        wanted = [plainly(model, source, 11) for source in sources[:8]]
        if len({len(line) for line in wanted}) > 1:
            break
        model.output.bias[EOS] += 0.2 if len(wanted[0]) == 11 else -0.07
    wanted = [plainly(model, source, 11) for source in sources]
    assert len({len(line) for line in wanted}) > 1
    for batch_size in (1, 7, 64):
        found = decode(model, sources, Search(), batch_size=batch_size)
        assert [each.tokens for each in found] == wanted


def test_a_beam_of_one_is_greedy(model):
    greedy = decode(model, SOURCES, Search(), batch_size=2)
    beam = decode(model, SOURCES, Search("beam", beam=1), batch_size=3)
    assert [each.tokens for each in beam] == [each.tokens for each in greedy]
    for one, other in zip(beam, greedy, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)
        assert one.is_cut == other.is_cut


@torch.no_grad()
@pytest.mark.parametrize("alpha", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_wide_beam_finds_what_trying_everything_finds(alpha, seed):
    torch.manual_seed(seed)
    model = build(SPECS["transformer-pre-learned"]).eval()
    for part in model.parameters():
        part.mul_(1.5)
    longest, best = 3, (-math.inf, [])
    source = padded([[4, 5]], CPU)
    for size in range(longest + 1):
        for line in itertools.product((UNK, 4, 5, 6, 7), repeat=size):
            scores = model(*source, torch.tensor([[BOS, *line]]))[0]
            scores[:, [PAD, BOS]] = -math.inf
            log = scores.log_softmax(-1)
            total = sum(float(log[i, token]) for i, token in enumerate([*line, EOS]))
            best = max(best, (penalised(total, size + 1, alpha), list(line)))
    search = Search("beam", beam=125, length_penalty=alpha, max_length=longest)
    found = decode(model, [[4, 5], [6]], search, batch_size=2)[0]
    assert found.tokens == best[1]
    score = penalised(found.log_probability, len(found.tokens) + 1, alpha)
    assert score == pytest.approx(best[0], abs=1e-4)


def test_the_length_penalty_is_that_of_the_paper():
    # Wu et al., 2016, eq. 14: lp(Y) = (5 + |Y|)^α / (5 + 1)^α
    assert penalised(-6.0, 1, 0.7) == pytest.approx(-6.0)
    assert penalised(-6.0, 7, 1.0) == pytest.approx(-3.0)
    assert penalised(-6.0, 7, 0.5) == pytest.approx(-6.0 / math.sqrt(2))


def test_lengths_are_held(model):
    for method in ("greedy", "beam", "sample"):
        search = Search(method, min_length=3, max_length=5)
        assert all(3 <= len(f.tokens) <= 5 for f in decode(model, SOURCES, search, batch_size=2))
        exact = Search(method, min_length=11)
        assert all(len(f.tokens) == 11 for f in decode(model, SOURCES, exact, batch_size=2))


def test_sampling_depends_on_the_seed_and_not_on_the_batch():
    model = made("gru-dot-both")
    first = decode(model, many(), Search("sample", seed=1), batch_size=5)
    again = decode(model, many(), Search("sample", seed=1), batch_size=40)
    other = decode(model, many(), Search("sample", seed=2), batch_size=5)
    assert [f.tokens for f in first] == [f.tokens for f in again]
    assert [f.tokens for f in first] != [f.tokens for f in other]


def test_sampling_follows_the_models_probabilities():
    model = made("lstm-none-one")
    source = [[4, 5]] * 4000
    log = model(*padded(source[:1], CPU), torch.tensor([[BOS]]))[0, -1].detach().clone()
    log[[PAD, BOS]] = -math.inf
    wanted = log.softmax(-1)
    found = decode(model, source, Search("sample", max_length=1), batch_size=4000)
    counts = torch.bincount(
        torch.tensor([f.tokens[0] if f.tokens else EOS for f in found]), minlength=8
    )
    shares = counts / counts.sum()
    # at the last place only the end fits: the cut ones were drawn all the same
    assert float((shares - wanted).abs().max()) < 4 * math.sqrt(0.25 / 4000)


def test_top_k_and_top_p_keep_what_they_say():
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert narrowed(scores, Search(top_k=2)).tolist()[0] == pytest.approx([0.625, 0.375, 0, 0])
    assert narrowed(scores, Search(top_p=0.5)).tolist()[0] == pytest.approx([1, 0, 0, 0])
    assert narrowed(scores, Search(top_p=0.51)).tolist()[0] == pytest.approx([0.625, 0.375, 0, 0])
    assert narrowed(scores, Search(top_p=0.001)).tolist()[0] == pytest.approx([1, 0, 0, 0])
    assert narrowed(scores, Search()).tolist()[0] == pytest.approx([0.5, 0.3, 0.15, 0.05])


def test_a_cold_temperature_is_greedy():
    model = made("transformer-post-learned")
    cold = decode(model, many(), Search("sample", temperature=1e-6), batch_size=8)
    greedy = decode(model, many(), Search(), batch_size=8)
    assert [f.tokens for f in cold] == [f.tokens for f in greedy]


def test_search_refuses_what_makes_no_sense():
    for wrong in (
        {"method": "bream"},
        {"beam": 0},
        {"temperature": 0.0},
        {"temperature": math.nan},
        {"top_p": 0.0},
        {"min_length": 3, "max_length": 2},
    ):
        with pytest.raises(ConfigError):
            Search(**wrong)


# ---- attention --------------------------------------------------------------------------------


def test_masked_softmax_leaves_its_argument_and_gives_zeros_for_an_empty_row():
    scores = torch.randn(2, 4)
    before = scores.clone()
    weights = attention.masked_softmax(scores, attention.valid_mask(torch.tensor([0, 2]), 4))
    assert torch.equal(scores, before)
    assert torch.equal(weights[0], torch.zeros(4))
    assert weights[1, :2] == pytest.approx(scores[1, :2].softmax(0))
    half = attention.masked_softmax(scores.half(), attention.valid_mask(torch.tensor([1, 2]), 4))
    assert half.isfinite().all()


def test_sinusoids_are_those_of_the_paper():
    table = attention.sinusoids(60, 32)
    for place, column in itertools.product((0, 1, 7, 59), (0, 1, 6, 7, 30, 31)):
        angle = place / 10000 ** ((column - column % 2) / 32)
        wanted = math.cos(angle) if column % 2 else math.sin(angle)
        assert float(table[place, column]) == pytest.approx(wanted, abs=1e-5)


def test_learning_rates_rise_and_fall():
    assert rate_factor("cosine", 0, 100, 0.1) == pytest.approx(0.1)
    assert rate_factor("cosine", 9, 100, 0.1) == rate_factor("cosine", 10, 100, 0.1) == 1
    assert rate_factor("cosine", 55, 100, 0.1) == pytest.approx(0.5)
    assert rate_factor("linear", 55, 100, 0.1) == pytest.approx(0.5)
    assert rate_factor("linear", 100, 100, 0.1) == rate_factor("cosine", 100, 100, 0.1) == 0
    assert rate_factor("inverse-sqrt", 39, 100, 0.1) == pytest.approx(0.5)
    assert rate_factor("constant", 99, 100, 0.1) == 1
    assert rate_factor("cosine", 0, 100, 0.0) == 1
