"""Face anti-spoofing, the worked example, as a person of that field would use it. The library knows nothing of faces.

========================  ============================================================================================
``samples``               the one record of everything that reads or generates faces; names and codes
``sets``                  CASIA-SURF, CeFA, WMCA and PADISI-USC on disk: lists, images, infrared descriptors
``standin``               generated faces in four domains, for who has no licensed data, and how they are judged
``sources``               either of them, by domain and split
``protocols``             who is trained on, who is tested on, what is taken away
``data``                  normalisation, missing modalities, augmentation, balanced batches
``backbones``             from images to features: small from scratch, or one ViT of timm or transformers
``systems``               MMDG, its repairs and its peers, each one file of wiring over the library's parts
``pretrain``              M²A²E, before any of them
``training``              one system trained and scored, resumable at any step
``plan``                  which trainings a study asks for; ``study`` does them, side by side
``scores``                what they said of each sample, on disk; ``record``, what a finished one was made from
``evaluation``            rates, thresholds from development data, intervals by person and seed
``files``                 what is written is there whole or not at all
``output``                tables, CSV, pictures, one HTML page; ``reporting`` fills them from a study
``scoring``               a folder of images through a saved run
========================  ============================================================================================

The command lines are ``fas_surf.py`` (studies and scoring) and ``fas_standin.py`` (generated faces). ``fas.evaluate``
is all rates of one detector, for scores from anywhere.
"""

from .evaluation import evaluate

__all__ = ["evaluate"]
