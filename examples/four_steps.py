"""The four steps by hand, with the settings and scores of `gmp-atl run demo`."""

from transformers import HfArgumentParser, set_seed

import gmp_atl_hf as gmp

parser = HfArgumentParser(description=__doc__)
parser.add_argument("out", nargs="?", default="out", help="folder for all that is made")
parser.add_argument("--sizes", nargs=5, type=int, default=(56, 7, 1, 2, 3), help="voices, sentences, epochs of 1, 3, 4")
out, (voices, sentences, *epochs) = vars(parser.parse_args()).values()
table = gmp.load_corpus("demo", f"{out}/corpus", speakers=voices, sentences=sentences)
parts = gmp.Protocol("given").folds(table)[0].select(table)  # no speaker is in two of train, dev and test
labels, extractor, cache = gmp.label_maps(table), gmp.load_feature_extractor("mini"), f"{out}/front-end"


def fit(step, model_class, start, rows, fields, **settings):
    """Train a model from a checkpoint; refused if it would touch a test speaker."""
    set_seed(0)  # the heads begin at random
    model = model_class.from_pretrained(start, **fields, readout=-1, pooling="statistics", standardize=True)
    settings |= {"learning_rate": 3e-4, "head_learning_rate": 1e-3, "warmup_steps": 0.1, "save_only_model": True}
    args = gmp.GMPATLTrainingArguments(f"{out}/{step}", num_train_epochs=epochs.pop(0), **settings, seed=0)
    trainer = gmp.GMPATLTrainer(model, args, *rows, extractor, front_end_cache=cache, held_out=parts["test"])
    trainer.train()
    trainer.save_model()
    return trainer


rows, first = (parts["train"], parts["dev"]), {"head_epochs": 20, "layer_decay": 0.7, "per_device_train_batch_size": 8}
teacher = fit(1, gmp.HubertForGMPATLMultiTask, "mini", rows, labels, **first).model
kmeans = gmp.MultiScaleKMeans([25, 50, 100]).fit_model(teacher, parts["train"], extractor, layers=[-3], cache=cache)
frames = [gmp.attach_pseudo_labels(part, kmeans, teacher, extractor, cache=cache) for part in rows]
fit(3, gmp.HubertForGMPATLFrameClassification, "mini", frames, {"frame_scales": kmeans.frame_scales}, batch_seconds=30)
trainer = fit(4, gmp.HubertForGMPATL, f"{out}/3", rows, labels, **first)
print("temperature:", trainer.calibrate(parts["dev"]), "test:", trainer.evaluate(parts["test"]))
trainer.save_model()  # with its temperature
