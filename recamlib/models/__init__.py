"""Networks: backbones, classifier, boundary network, segmentation networks."""
