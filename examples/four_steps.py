"""The four steps by hand, with the settings and scores of `gmp-atl run demo`: python examples/four_steps.py [FOLDER]."""

import sys

from transformers import set_seed

import gmp_atl_hf as gmp

# For a quick look: FOLDER, voices, sentences, and the epochs of the three trainings, as in `out 6 1 1 1 1`.
out, (voices, sentences, *epochs) = (sys.argv[1:] or ["out"])[0], map(int, sys.argv[2:] or (56, 7, 2, 3, 4))
table = gmp.load_corpus("demo", f"{out}/corpus", speakers=voices, sentences=sentences)
parts = gmp.Protocol("given").folds(table)[0].select(table)  # no speaker is in two of train, dev and test
labels, extractor, cache = gmp.label_maps(table), gmp.load_feature_extractor("mini"), f"{out}/front-end"


def fit(step, model_class, start, rows, epochs, fields, **settings):
    """Train a model from a checkpoint; a training that would touch a test speaker is refused."""
    set_seed(0)  # the heads begin at random
    model = model_class.from_pretrained(start, **fields)
    settings |= {"num_train_epochs": epochs, "learning_rate": 1e-3, "warmup_steps": 0.1, "save_only_model": True}
    args, test = gmp.GMPATLTrainingArguments(f"{out}/{step}", **settings), parts["test"]
    trainer = gmp.GMPATLTrainer(
        model, args, rows["train"], rows["dev"], extractor, front_end_cache=cache, held_out=test
    )
    trainer.train()
    trainer.save_model()
    return trainer


teacher = fit("1", gmp.HubertForGMPATLMultiTask, "mini", parts, epochs[0], labels).model
kmeans = gmp.MultiScaleKMeans([25, 50, 100]).fit_model(teacher, parts["train"], extractor, layers=[-3], cache=cache)
rows = {
    part: gmp.attach_pseudo_labels(parts[part], kmeans, teacher, extractor, cache=cache) for part in ("train", "dev")
}
scales = {"frame_scales": kmeans.frame_scales}
fit("3", gmp.HubertForGMPATLFrameClassification, "mini", rows, epochs[1], scales, batch_seconds=30)
trainer = fit("4", gmp.HubertForGMPATL, f"{out}/3", parts, epochs[2], labels, per_device_train_batch_size=8)
trainer.calibrate(parts["dev"])
trainer.save_model()  # once more, with its temperature: gmp.SpeechEmotionClassifier.from_pretrained("out/4")
print(trainer.evaluate(parts["test"], metric_key_prefix="test"))
