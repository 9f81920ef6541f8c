"""Fine-tune a classifier: `KERAS_BACKEND=jax python -m keras_dogs.train --help`."""

import shlex

from keras_dogs import commands
from keras_dogs.training.config import TrainConfig

REAL_THING = "--preset vit_base_patch16_224_imagenet21k --dataset stanford_dogs"


def main() -> int:
    """Runs the command and returns its exit status."""
    return commands.run("train", TrainConfig, _train)


def _train(config: TrainConfig) -> int | None:
    from keras_dogs import backends

    if config.devices is not None:  # a process that only starts others needs no Keras
        from keras_dogs.backends.on_torch import launching

        if launching.is_needed(config.spread, backends.select()):
            return launching.launch(config.spread)
    backend_name = backends.load()
    from keras_dogs.training.fine_tuning import fine_tune

    run = fine_tune(config, commands.STARTED)
    if run.record is None:
        return None  # of several processes, only the first prints the result
    test, record, folder = run.record.test, run.record, shlex.quote(str(run.folder))
    of_what = "features/s" if record.timings.features_s else "images/s"
    print(
        f"test: top-1 {test.top1_accuracy:.1%}, top-5 {test.top5_accuracy:.1%}, mean per-class "
        f"{test.mean_per_class_accuracy:.1%} on {test.num_pictures:,} pictures ({record.kept}); "
        f"{record.throughput.train_images_per_second:.0f} {of_what}, {record.timings.total_s:.0f} s in all"
    )
    print(f"run folder: {run.folder}")
    print(f"next:       python -m keras_dogs.predict {folder} PICTURE...")
    if record.dataset.name == "drawn_dogs":
        print(f"for real:   KERAS_BACKEND={backend_name} python -m keras_dogs.train {REAL_THING}")
    return None


if __name__ == "__main__":
    commands.leave(main)
