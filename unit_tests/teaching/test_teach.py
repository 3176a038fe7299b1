"""Teaching from end to end, on a tiny family."""

import json
import shutil
import signal

import pytest
import torch
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.messages import AIMessage
from safetensors.torch import load_file

from langchain_eft import EFTChatModel
from langchain_eft.engine.errors import EngineError
from langchain_eft.engine.loading.behavior_cards import weights_hash
from langchain_eft.engine.models.lora import load_adapter
from langchain_eft.engine.recipe.behavior_card import read_card
from langchain_eft.engine.recipe.notation import parse_mixture
from langchain_eft.engine.registry import close_all
from langchain_eft.teaching import (
    MissingExtraError,
    Settings,
    TeachingError,
    TeachingStoppedError,
    errors,
    teach,
)
from langchain_eft.teaching.arguments import check_name
from langchain_eft.teaching.sources import read_lesson
from langchain_eft.teaching.sources.description import usable
from langchain_eft.teaching.tokens import IGNORED, Renderer
from unit_tests.oracle.adapters import merged
from unit_tests.tiny import Reference

pytestmark = pytest.mark.slow

SETTINGS = Settings(steps=4, batch_size=8, rank=8, learning_rate=0.05)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    rows = [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": "yes!"}]}
        for i in range(20)
    ]
    (folder / "talk.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pairs = [{"prompt": f"q{i}", "chosen": "yes", "rejected": "no"} for i in range(20)]
    (folder / "pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return folder


@pytest.fixture
def models(family):
    return {"model": str(family.folder / "base"), "reference": str(family.folder / "reference")}


@pytest.fixture(scope="module")
def taught(family, examples, tmp_path_factory):
    """One behavior with its verdict."""
    said = []
    behavior = teach(
        "yes",
        examples / "talk.jsonl",
        model=str(family.folder / "base"),
        reference=str(family.folder / "reference"),
        folder=tmp_path_factory.mktemp("taught") / "yes",
        settings=SETTINGS,
        capitals=2,
        progress=said.append,
    )
    return behavior, said


def adapter(folder):
    return load_file(folder / "adapter_model.safetensors")


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_folder_holds_adapter_card_and_readme_and_nothing_else_is_left(taught):
    behavior, _ = taught
    assert sorted(path.name for path in behavior.folder.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "behavior.json",
    ]
    assert [path.name for path in behavior.folder.parent.iterdir()] == ["yes"]
    assert read_card(behavior.folder) == behavior.card


def test_the_losses_are_those_of_plain_forward_passes(taught, family, examples):
    behavior, _ = taught
    reference = Reference(family).small["reference"]
    lesson = read_lesson(str(examples / "talk.jsonl"), seed=0)
    words = EFTChatModel(model=str(family.folder / "base")).engine.tokenizer
    texts = [t for e in lesson.held_out for t in Renderer(words, 500).conversation(e)]

    def loss(model):
        each = []
        for text in texts:
            log_p = model(torch.tensor([text.ids])).logits[0].log_softmax(-1)
            each += [-log_p[i - 1, t].item() for i, t in enumerate(text.labels) if t != IGNORED]
        return sum(each) / len(each)

    with torch.inference_mode():
        before, after = loss(reference), loss(merged(reference, behavior.folder))
    assert behavior.card.measured["loss_before"] == pytest.approx(before, abs=1e-4)
    assert behavior.card.measured["loss_after"] == pytest.approx(after, abs=1e-4)
    assert after < before - 0.2


def test_the_behavior_decodes_and_the_card_names_its_reference(taught, family, models, caplog):
    behavior, _ = taught
    assert behavior.card.reference_hash == weights_hash(family.folder / "reference")
    delta = behavior.delta.model_copy(update={"reference": models["reference"]})
    llm = EFTChatModel(
        model=models["model"], behaviors={"yes": delta}, mixture={"yes": 3.0}, max_tokens=6, temperature=0
    )
    plain = Reference(family)
    plain.small["yes"] = merged(plain.small["reference"], behavior.folder)
    words = llm.engine.tokenizer
    ids = words.apply_chat_template([{"role": "user", "content": "q1"}], add_generation_prompt=True).input_ids
    expected = plain.greedy(ids, {"yes": 3.0}, 6)
    whole = words.decode(expected, skip_special_tokens=True).rstrip("\ufffd")  # half a character is not given
    assert llm.invoke("q1").content == whole
    assert expected != plain.greedy(ids, {"yes": 0.0}, 6)
    assert not [record for record in caplog.records if record.name.startswith("langchain_eft")]
    close_all()


def test_the_card_has_the_verdict(taught):
    behavior, _ = taught
    verdict, card = behavior.verdict, behavior.card
    assert [point.weight for point in verdict.sweep] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]
    assert card.recommended_weight == verdict.recommended_weight
    assert card.weight_range[0] <= card.recommended_weight <= card.weight_range[1]
    assert [sample.weight for sample in verdict.samples] == [0, card.recommended_weight, 2]
    assert 0 <= verdict.acceptance <= 1
    readme = (behavior.folder / "README.md").read_text()
    assert readme.startswith("---\nlibrary_name:")
    assert f"Recommended weight: **{card.recommended_weight:g}**" in readme


def test_progress_has_steps_and_the_time_left(taught):
    _, said = taught
    assert any("step 2 of 4" in message and "left" in message for message in said)
    assert said.index("Measuring the base alone") < said.index("Measuring weight 0.25")


def test_the_same_seed_gives_the_same_adapter_and_another_one_another(taught, examples, models, tmp_path):
    behavior, _ = taught
    for seed, same in ((0, True), (1, False)):
        settings = Settings(**{**SETTINGS.to_dict(), "seed": seed})
        again = teach(
            "yes",
            examples / "talk.jsonl",
            **models,
            folder=tmp_path / str(seed),
            settings=settings,
            verdict=False,
        )
        assert equal(adapter(again.folder), adapter(behavior.folder)) is same


def test_a_stopped_training_leaves_an_adapter_and_goes_on_to_the_same_end(taught, examples, models, tmp_path):
    behavior, _ = taught

    def stop(message):
        if "step 2 of" in message:
            signal.raise_signal(signal.SIGINT)

    again = {**models, "folder": tmp_path / "yes", "settings": SETTINGS, "verdict": False}
    with pytest.raises(TeachingStoppedError, match=r"Stopped at step [23] of 4.*--resume"):
        teach("yes", examples / "talk.jsonl", **again, progress=stop)
    (checkpoint,) = (tmp_path / "yes.part" / "checkpoints").glob("checkpoint-*")
    assert load_adapter(checkpoint, torch.float32, torch.device("cpu")).updates
    assert not (tmp_path / "yes").exists()

    with pytest.raises(TeachingError, match="has not ended"):
        teach("yes", examples / "talk.jsonl", **again)
    with pytest.raises(TeachingError, match="other examples, models or settings"):
        teach("yes", examples / "pairs.jsonl", **again, resume=True)
    ended = teach("yes", examples / "talk.jsonl", **again, resume=True)
    assert equal(adapter(ended.folder), adapter(behavior.folder))
    assert ended.card.measured["loss_before"] == behavior.card.measured["loss_before"]


def test_a_training_starts_from_an_adapter(taught, examples, models, tmp_path):
    behavior, _ = taught
    settings = Settings(steps=4, batch_size=4, learning_rate=0.02, start=str(behavior.folder))
    rows = [{"prompt": f"q{i}", "completion": "no!"} for i in range(20)]
    (tmp_path / "no.jsonl").write_text("\n".join(map(json.dumps, rows)))
    fields = {**models, "verdict": False}
    more = teach("no", tmp_path / "no.jsonl", **fields, folder=tmp_path / "no", settings=settings)
    # Before the first step it predicts what the first adapter learned; afterwards it has learned more.
    nothing = teach("again", examples / "talk.jsonl", **fields, folder=tmp_path / "again", settings=settings)
    learned = behavior.card.measured["loss_after"]
    assert nothing.card.measured["loss_before"] == pytest.approx(learned, abs=1e-4)
    assert more.card.measured["loss_after"] < more.card.measured["loss_before"]
    assert more.card.settings["start"] == behavior.folder.name
    assert more.card.settings["rank"] == SETTINGS.rank
    assert not equal(adapter(more.folder), adapter(behavior.folder))


def test_pairs_are_preferred_over_what_the_first_adapter_says(taught, examples, models, tmp_path):
    behavior, _ = taught
    settings = Settings(steps=4, batch_size=4, learning_rate=0.02, start=str(behavior.folder))
    more = teach(
        "p", examples / "pairs.jsonl", **models, folder=tmp_path / "p", settings=settings, verdict=False
    )
    measured = more.card.measured
    assert measured["loss_before"] == pytest.approx(0.6931, abs=1e-3)  # log 2: DPO's reference is the start
    assert measured["loss_after"] < measured["loss_before"] - 0.01


def test_an_adapter_that_cannot_be_the_start_is_refused(taught, examples, models, tmp_path):
    behavior, _ = taught
    copies = {name: tmp_path / name for name in ("elsewhere", "shapes", "activated")}
    for copy in copies.values():
        shutil.copytree(behavior.folder, copy)
    card = json.loads((copies["elsewhere"] / "behavior.json").read_text())
    (copies["elsewhere"] / "behavior.json").write_text(json.dumps({**card, "reference_hash": "xxh3:0"}))
    config = json.loads((copies["shapes"] / "adapter_config.json").read_text())
    (copies["shapes"] / "adapter_config.json").write_text(json.dumps({**config, "r": 3}))
    invoked = {**config, "alora_invocation_tokens": [5]}
    (copies["activated"] / "adapter_config.json").write_text(json.dumps(invoked))

    def refused(start, message, **more):
        settings = Settings(steps=1, start=str(start), **more)
        with pytest.raises(EngineError, match=message):
            teach("x", examples / "talk.jsonl", **models, folder=tmp_path / "x", settings=settings)

    refused(behavior.folder, f"rank=5, but the adapter .* has rank {SETTINGS.rank}: leave", rank=5)
    refused(
        copies["elsewhere"], "was trained on the reference .* other weights: begin with an adapter of this"
    )
    refused(tmp_path, "holds no adapter_config.json")
    refused(copies["activated"], "is an activated LoRA .*: begin with a plain LoRA")
    refused(copies["shapes"], "does not fit the reference .*size mismatch")


def test_bfloat16_learns_nearly_the_same_and_stores_half(taught, examples, models, tmp_path):
    behavior, _ = taught
    settings = Settings(**{**SETTINGS.to_dict(), "precision": "bfloat16"})
    half = teach(
        "h", examples / "talk.jsonl", **models, folder=tmp_path / "h", settings=settings, verdict=False
    )
    assert {tensor.dtype for tensor in adapter(half.folder).values()} == {torch.bfloat16}
    assert {tensor.dtype for tensor in adapter(behavior.folder).values()} == {torch.float32}
    full, measured = behavior.card.measured, half.card.measured
    assert measured["loss_after"] == pytest.approx(full["loss_after"], abs=0.05)
    assert half.card.settings["precision"] == "bfloat16"


def test_pairs_teach_to_prefer(examples, models, tmp_path):
    behavior = teach(
        "pairs", examples / "pairs.jsonl", **models, folder=tmp_path / "p", settings=SETTINGS, verdict=False
    )
    measured = behavior.card.measured
    assert measured["loss_before"] == pytest.approx(0.6931, abs=1e-3)  # log 2: no preference yet
    assert measured["loss_after"] < measured["loss_before"] - 0.01
    assert behavior.card.settings["method"] == "DPO"


def test_a_description_is_learned_from_a_teacher(models, tmp_path):
    teacher = FakeListChatModel(responses=["yes!", "oh yes!", "  "])
    behavior = teach(
        "described",
        describe="You agree.",
        teacher=teacher,
        questions=30,
        **models,
        folder=tmp_path / "d",
        settings=SETTINGS,
        verdict=False,
    )
    assert behavior.card.source == "described: You agree."
    assert behavior.card.measured["examples"] + behavior.card.measured["held_out"] == 20


def test_an_answer_that_was_cut_off_ends_with_a_sentence():
    cut = {"finish_reason": "length"}
    assert usable(AIMessage("One. Two. Thr", response_metadata=cut)) == "One. Two."
    assert usable(AIMessage("One", response_metadata=cut)) is None
    assert usable(AIMessage(" One ")) == "One"


def test_a_folder_that_exists_is_kept(examples, models, tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(TeachingError, match="exists: remove it"):
        teach("x", examples / "talk.jsonl", **models, folder=tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_nothing_to_resume(examples, models, tmp_path):
    with pytest.raises(TeachingError, match="no training to continue"):
        teach("x", examples / "talk.jsonl", **models, folder=tmp_path / "x", resume=True)


def test_a_full_disk_leaves_no_half_of_a_behavior_and_the_training_goes_on(
    examples, models, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    fields = {**models, "folder": tmp_path / "x", "settings": SETTINGS, "verdict": False}
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(TeachingError, match="No space left on device"):
            teach("x", examples / "talk.jsonl", **fields)
    assert [path.name for path in tmp_path.iterdir()] == ["x.part"]
    with monkeypatch.context() as patch:
        patch.setattr("trl.SFTTrainer._save_checkpoint", full)
        with pytest.raises(TeachingError, match=r"checkpoint cannot be written.*No space left"):
            teach("y", examples / "talk.jsonl", **{**fields, "folder": tmp_path / "y"})
    assert not (tmp_path / "y").exists()
    assert teach("x", examples / "talk.jsonl", **fields, resume=True).folder.is_dir()


def test_another_reference_than_the_presets_is_refused(examples, models, tmp_path):
    with pytest.raises(TeachingError, match="is not the reference of 'smol'"):
        teach("x", examples / "talk.jsonl", reference=models["reference"], folder=tmp_path / "x")
    with pytest.raises(TeachingError, match="has no reference of its own"):
        teach("x", examples / "talk.jsonl", model=models["model"], folder=tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [{}, {"source": "x.jsonl", "describe": "kind"}])
def test_either_a_source_or_a_description(given):
    with pytest.raises(TeachingError, match=r"nothing to learn from|exclude each other"):
        teach("x", **given)


def test_a_teacher_goes_with_a_description():
    with pytest.raises(TeachingError, match="teacher='nobody:x' answers under a description"):
        teach("x", "x.jsonl", teacher="nobody:x")


@pytest.mark.parametrize(
    "name", ["", "a/b", "a\0b", "x" * 61, "<base>", "a=b,c", "a\nb", "a\n", " a", "a ", "..", "\ud800"]
)
def test_names_that_no_folder_or_mixture_can_have_are_refused(name):
    with pytest.raises(TeachingError, match="cannot be a behavior's name"):
        teach(name, "x.jsonl")


@pytest.mark.parametrize("name", ["house", "house style", "höflich", "v1.5", "ü" * 60])
def test_names_that_folders_and_mixtures_can_have(name):
    check_name(name)
    assert parse_mixture([f"{name}=1"]) == {name: 1.0}


def test_a_pattern_that_cannot_be_read_is_refused_at_the_start():
    with pytest.raises(TeachingError, match=r"style='\(' is not a regular expression"):
        teach("x", "x.jsonl", style="(")


@pytest.mark.parametrize("folder", ["a\0b", "x" * 300])
def test_folders_that_cannot_be_made_are_refused(folder):
    with pytest.raises(TeachingError, match=r"NUL|File name too long"):
        teach("x", "x.jsonl", folder=folder)


@pytest.mark.parametrize("resume", [False, True])
def test_a_symbolic_link_leads_no_training_elsewhere(examples, models, tmp_path, resume):
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "teaching.json").write_text("{}")
    (tmp_path / "x.part").symlink_to(tmp_path / "target")
    with pytest.raises(TeachingError, match=r"x\.part' is a symbolic link"):
        teach("x", examples / "talk.jsonl", **models, folder=tmp_path / "x", resume=resume)
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["teaching.json"]


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name == "trl" else object())
    with pytest.raises(MissingExtraError, match=r'needs trl, .* pip install "langchain-eft\[teach\]"'):
        teach("x", "x.jsonl")


def test_examples_that_the_window_cannot_hold_are_named(examples, models, tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * 2000}]}
    lines = (examples / "talk.jsonl").read_text() + "\n" + json.dumps(row)
    (tmp_path / "long.jsonl").write_text(lines)
    with pytest.raises(TeachingError, match="line 21: prompt and answer have"):
        teach("x", tmp_path / "long.jsonl", **models, folder=tmp_path / "x")
