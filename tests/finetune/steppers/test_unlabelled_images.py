from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from data_shards.support.errors import ConfigError, DataError
from finetune.classifier.estimate import cross_validated
from finetune.classifier.estimator import FewLabelClassifier
from finetune.classifier.unlabelled import apart
from medformer.cli import main
from pretrain.bundle import save_bundle
from tests.finetune.samples import TINY, blobs, of_target, tiny_backbone


def classifier(stepper: str = "mixmatch", **options: object) -> FewLabelClassifier:
    return FewLabelClassifier(tiny_backbone(), stepper=stepper, max_steps=6, batch_size=8, **options)


@pytest.mark.parametrize("stepper", ["pseudo_labels", "mean_teacher", "mixmatch", "hybrid"])
def test_a_trained_backbone_learns_from_unlabelled_images_and_not_at_all_with_weight_0(stepper: str) -> None:
    given, further = blobs(8), blobs(20, seed=5)
    quick = {"round_steps": 2} if stepper == "pseudo_labels" else {}
    settings = {"strategy": "full", "learning_rate": 0.003, "calibrate": False}
    plain = classifier("plain", **settings).fit(given).predict_proba(further)
    same = classifier(stepper, stepper_options={"weight": 0, **quick}, **settings).fit(given, unlabelled=further)
    np.testing.assert_array_equal(same.predict_proba(further), plain)
    other = classifier(stepper, stepper_options=quick, **settings).fit(given, unlabelled=further)
    assert np.abs(other.predict_proba(further) - plain).max() > 1e-6
    assert other.record_.unlabelled_images == 20 and other.record_.chosen["unlabelled"] == 20


def test_a_frozen_linear_head_is_trained_by_gradient_and_comes_back_as_it_was(tmp_path: Path) -> None:
    bundle = save_bundle(tmp_path / "bundle", tiny_backbone(), "medformer_nano", TINY, {}, {})
    made = FewLabelClassifier(bundle, stepper="mixmatch", max_steps=10).fit(
        blobs(12), unlabelled=blobs(30, seed=7).images
    )
    made.save(tmp_path / "saved")
    again = FewLabelClassifier.load(tmp_path / "saved")
    np.testing.assert_array_equal(again.predict_proba(blobs(6, seed=2)), made.predict_proba(blobs(6, seed=2)))
    assert again.record_.unlabelled_images == 30


def test_unlabelled_copies_of_labelled_cases_and_their_subjects_are_left_out_and_counted() -> None:
    pool = replace(blobs(30), subjects=np.array([f"s{index // 2}" for index in range(30)]))
    left, lost = apart(pool, [pool[:3]])
    assert lost == 4 and left.keys.tolist() == pool.keys[4:].tolist()
    fitted = classifier().fit(blobs(8), unlabelled=replace(blobs(20, seed=0), subjects=None))
    copies = len({image.tobytes() for image in blobs(8).images} & {image.tobytes() for image in blobs(20).images})
    assert fitted.record_.unlabelled_left_out == copies
    with pytest.raises(DataError, match="none is left to learn from"):
        classifier().fit(blobs(8), unlabelled=blobs(8))


def test_no_fold_of_a_cross_validation_sees_a_held_out_case_without_its_label(monkeypatch: pytest.MonkeyPatch) -> None:
    given = blobs(12)
    further = replace(
        given, images=np.concatenate([given.images, blobs(6, seed=9).images]), labels=None,
        keys=np.arange(18), spacing_mm=None, rows=None,
    )  # fmt: skip
    model = classifier().fit(given, unlabelled=further)
    assert model.record_.unlabelled_left_out == 12
    seen: list[int] = []
    fit = FewLabelClassifier.fit

    def watched(self: FewLabelClassifier, X: object, **options: object) -> FewLabelClassifier:
        fitted = fit(self, X, **options)
        seen.append(fitted.record_.unlabelled_images)
        return fitted

    monkeypatch.setattr(FewLabelClassifier, "fit", watched)
    cross_validated(model, given, folds=2, repeats=1, unlabelled=further)
    assert seen == [6, 6]


def test_what_cannot_be_learned_from_unlabelled_images_is_one_message_each() -> None:
    further = blobs(10, seed=5)
    with pytest.raises(ConfigError, match="stepper plain uses none; hybrid, mean_teacher, mixmatch, pseudo_labels do"):
        classifier("plain").fit(blobs(8), unlabelled=further)
    with pytest.raises(ConfigError, match="mixmatch learns from unlabelled images too, and none are given"):
        classifier().fit(blobs(8))
    with pytest.raises(DataError, match="unlabelled .* has image 20 x 20 where others have image 16 x 16"):
        classifier().fit(blobs(8), unlabelled=blobs(10, seed=5, side=20))
    with pytest.raises(ConfigError, match="a ordinal target is not for it"):
        classifier().fit(of_target("ordinal"), unlabelled=further)
    with pytest.raises(ConfigError, match="hybrid is for strategies that train the backbone, and frozen does not"):
        classifier("hybrid").fit(blobs(8), unlabelled=further)
    with pytest.raises(ConfigError, match="mixes by itself"):
        classifier(mixup=0.2).fit(blobs(8), unlabelled=further)


def test_the_command_leaves_out_what_a_test_split_holds_and_tells_how_many_were_learned_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = save_bundle(tmp_path / "bundle", tiny_backbone(), "medformer_nano", TINY, {}, {})
    labelled, further = tmp_path / "labelled", tmp_path / "further"
    labelled.mkdir(), further.mkdir()
    lines = ["file,label,split"]
    for index, (pixels, label) in enumerate(zip(blobs(24).images, blobs(24).targets, strict=True)):
        np.save(labelled / f"{index}.npy", pixels)
        lines.append(f"{index}.npy,{'ab'[label]},{'train' if index < 12 else 'test'}")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    for index, pixels in enumerate([*blobs(24).images[:14], *blobs(10, seed=6).images]):
        np.save(further / f"{index}.npy", pixels)
    words = ["finetune", "--model", str(bundle), "--data", str(labelled), "--csv", str(tmp_path / "table.csv")]
    words += ["--out", str(tmp_path / "out"), "--set", "stepper=pseudo_labels", "max_steps=20"]
    assert main(words) != 0
    assert "pseudo_labels learns from unlabelled images too, and none are given" in capsys.readouterr().err
    assert main([*words, "--unlabelled", "nowhere"]) == 2
    printed = capsys.readouterr()  # before the labelled images are read, which may take long
    assert printed.out == "" and printed.err == "medformer: error: nowhere: no such file or folder\n"
    assert main([*words, "--unlabelled", str(further)]) == 0
    printed = capsys.readouterr().out
    assert "learned from 10 unlabelled cases, too, 12 left out, which are labelled\n" in printed
    assert "note: 2 unlabelled cases are among those of a held-out split and are left out." in printed
    fit = json.loads((tmp_path / "out" / "metrics.json").read_text())["fit"]
    assert (fit["unlabelled_images"], fit["unlabelled_left_out"]) == (10, 12)
