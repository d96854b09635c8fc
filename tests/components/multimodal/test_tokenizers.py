import numpy as np
import pytest
import torch

from paperflows.components.errors import InputError
from paperflows.components.multimodal.music import (
    DURATIONS,
    Event,
    MusicTokenizer,
    NoMelody,
    excerpt,
    parse_written,
    play,
    read_abc,
    write_abc,
)
from paperflows.components.multimodal.pictures import DrawingTokenizer, PatchTokenizer, reconstruction_loss
from paperflows.components.multimodal.speech import BANDS, HOP, SpeechTokenizer, griffin_lim, log_mel, mel_filters
from paperflows.components.multimodal.tokenizers import perplexity

C4, D4, FS4, G4 = 60, 62, 66, 67


def test_abc_by_hand():
    # two sharps; an accidental lasts to the bar's end; a triplet plays three in the time of two; a tie joins
    bars = read_abc('"D"F=F F2|(3DEF G2-|G4|z2 _A c\'', meter="4/4", key="D")
    assert bars == [
        [Event(FS4, 12), Event(65, 12), Event(65, 24)],
        [Event(D4, 8), Event(64, 8), Event(FS4, 8), Event(G4, 24)],
        [Event(G4, 48)],
        [Event(-1, 24), Event(68, 12), Event(85, 12)],
    ]


def test_a_tie_within_a_bar_is_one_note_and_short_units_are_the_default_below_three_quarters():
    assert read_abc("C2-C2|", meter="2/4", key="C") == [[Event(C4, 24)]]
    assert read_abc("C|", meter="3/4", key="C") == [[Event(C4, 12)]]
    assert read_abc("F|", meter="6/8", key="F") == [[Event(65, 12)]] and read_abc("B|", meter="6/8", key="F") == [
        [Event(70, 12)]
    ]


def test_music_ids_by_hand_and_back():
    tune = [[Event(C4, 24), Event(D4, 24)], [Event(C4, 48)]]
    quarter, half = 54 + DURATIONS.index(24), 54 + DURATIONS.index(48)
    ids = MusicTokenizer().encode([tune])[0]
    assert ids == [quarter, 2 + 12, 2 + 14, 0, half, 2 + 12, 0] and max(ids) < MusicTokenizer.n_ids
    assert MusicTokenizer().decode(ids) == tune


def test_music_inverse_is_exact_on_random_tunes():
    draw = np.random.default_rng(0)
    for _ in range(50):
        tune = [
            [
                Event(int(draw.integers(48, 100)) if draw.random() > 0.1 else -1, int(draw.choice(DURATIONS)))
                for _ in range(draw.integers(1, 9))
            ]
            for _ in range(draw.integers(1, 6))
        ]
        tokenizer = MusicTokenizer()
        assert tokenizer.decode(tokenizer.encode([tune])[0]) == tune
        assert parse_written(write_abc(tune, meter="3/4")) == tune
        assert np.isfinite(play(tune)).all()


@pytest.mark.parametrize(
    ("abc", "why"),
    [
        ("K:D\nCDE|", "changes key"),
        ("[CEG]2|", "chords"),
        ("C7|", "84/96"),
        ("(5CDEFG|", "tuplet"),
        ("C,,,|", "pitch 24"),
    ],
)
def test_what_events_cannot_hold_is_named(abc, why):
    if why == "84/96":  # seven eighths are held, seven 32nds are not
        assert read_abc(abc, meter="4/4", key="C") == [[Event(C4, 84)]]
        return
    with pytest.raises(NoMelody, match=why):
        read_abc(abc, meter="4/4", key="C")


def test_an_excerpt_has_whole_bars_only():
    bars = [[Event(C4, 12)], *[[Event(C4 + i, 96)] for i in range(4)]]
    assert excerpt(bars, 3) == bars[1:4]
    with pytest.raises(NoMelody, match="4 whole bars, fewer than 5"):
        excerpt(bars, 5)


def test_patches_come_back_in_their_places():
    kinds = np.zeros((4, 2, 2, 1), np.uint8)
    kinds[1], kinds[2], kinds[3, 0] = 255, 128, 255
    draw = np.random.default_rng(0)
    grid = draw.integers(0, 4, (60, 2, 4))
    pictures = [np.concatenate([np.concatenate([kinds[k] for k in row], 1) for row in one], 0) for one in grid]
    tokenizer = PatchTokenizer(shape=(4, 8, 1), patch=2, codes=12)
    tokenizer.fit(pictures, steps=5, seed=0)
    ids = tokenizer.encode(pictures[:5])
    assert all(len(one) == tokenizer.exact == 8 for one in ids)
    for picture, one in zip(pictures, ids, strict=False):
        assert np.abs(tokenizer.decode(one).astype(int) - picture).max() <= 1
    with pytest.raises(InputError, match=r"5 x 8 pixels are no grid of patches of 2 \(tokenizers"):
        PatchTokenizer(shape=(5, 8, 1), patch=2, codes=4)


def test_drawing_ids_are_offset_by_level_and_read_back(tmp_path):
    torch.manual_seed(0)
    tokenizer = DrawingTokenizer(channels=3, width=4, codes=8, levels=2)
    pictures = [np.random.default_rng(i).integers(0, 256, (32, 32, 3)).astype(np.uint8) for i in range(20)]
    from paperflows.components.multimodal.pictures import as_tensor

    loss = reconstruction_loss(tokenizer.model.train(), {"pixels": as_tensor(pictures)})
    loss.backward()
    assert tokenizer.model.encoder[0].weight.grad.abs().sum() > 0, "gradients pass the code book"
    tokenizer.model.eval()
    (ids,) = tokenizer.encode(pictures[:1])
    assert len(ids) == tokenizer.exact == 32
    assert all(0 <= i < 8 for i in ids[::2]) and all(8 <= i < 16 for i in ids[1::2])
    tokenizer.save(tmp_path)
    again = DrawingTokenizer(channels=3, width=4, codes=8, levels=2).restore(tmp_path)
    assert again.encode(pictures[:1]) == [ids] and np.array_equal(again.decode(ids), tokenizer.decode(ids))


def test_mel_filters_cover_the_band_and_sum_to_one():
    filters = mel_filters()
    assert filters.shape == (BANDS, 257) and torch.allclose(filters.sum(1), torch.ones(BANDS), atol=1e-5)
    assert (filters.argmax(1).diff() > 0).all()


def test_a_tone_stays_at_its_pitch_through_ids_and_griffin_lim():
    rate, seconds = 8000, 0.5
    at = np.arange(int(rate * seconds)) / rate
    tones = [(0.5 * np.sin(2 * np.pi * f * at)).astype(np.float32) for f in (300, 600, 1200, 2400)]
    tokenizer = SpeechTokenizer(codes=16)
    tokenizer.fit(tones, steps=20, seed=0)
    ids = tokenizer.encode(tones)
    assert all(len(one) == len(at) // HOP + 1 for one in ids)
    for tone, one in zip(tones, ids, strict=True):
        made = tokenizer.decode(one)
        assert len(made) == pytest.approx(len(tone), rel=0.05)
        peak = [np.abs(np.fft.rfft(x)).argmax() * rate / len(x) for x in (tone, made)]
        assert peak[1] == pytest.approx(peak[0], rel=0.12)


def test_griffin_lim_agrees_with_the_magnitudes_it_was_given():
    at = np.arange(4000) / 8000
    tone = torch.from_numpy(np.sin(2 * np.pi * 440 * at) * np.hanning(4000)).float()
    window = torch.hann_window(200)
    magnitude = torch.stft(tone, 512, 40, 200, window, return_complex=True, pad_mode="constant").abs()
    again = torch.stft(
        griffin_lim(magnitude, hop=40), 512, 40, 200, window, return_complex=True, pad_mode="constant"
    ).abs()
    assert float((again - magnitude).norm() / magnitude.norm()) < 0.2


def test_log_mel_frames_and_perplexity():
    assert log_mel(np.zeros(1600, np.float32)).shape == (11, BANDS)
    assert perplexity([[0, 1, 2, 3]], 8) == pytest.approx(4) and perplexity([[5, 5]], 8) == pytest.approx(1)
