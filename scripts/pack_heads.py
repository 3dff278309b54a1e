"""Write the heads that ``recam map`` uses, FC1 and FC2 of VOC in half precision, with what is known of them.

Run after ``recam run 02 --profile mini``: they are those of its first seed.
"""

from safetensors.torch import save_file

from recamlib.book.export import trained_stage
from recamlib.files import whole_file
from recamlib.report.compare import load_run
from recamlib.studies.photo import HEADS

if __name__ == "__main__":
    model = trained_stage(load_run("02/mini"), "recam_w")
    classifier, fc2 = model.load()
    record = model.result["convergence"]
    facts = {
        "classes": ",".join(model.dataset.images("train_aug").space.classes), "seed": str(model.seed),
        "backbone": f"{model.base.backbone}, {model.base.weights}", "scale": str(model.base.scale),
        "images": str(model.result["images"]), "val_map": f"{record['val_map']:.1f}",
        "fc2_accuracy": f"{record['fc2_accuracy']:.1f} of {record['softmax_accuracy']:.1f}",
        "made_by": "recam run 02 --profile mini, seed 0",
    }  # fmt: skip
    tensors = {"fc1": classifier.fc1.weight.detach().half(), "fc2": fc2.half()}
    with whole_file(HEADS) as part:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=facts)
