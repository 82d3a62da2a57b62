"""Face anti-spoofing, the worked example: data, metrics, pictures, a model. The library itself knows nothing of faces.

- ``samples``: the one record of everything that reads or generates faces; names and codes.
- ``standin``: generated faces in four domains, for who has no licensed data. Its parts: ``profiles`` (the four sites),
  ``faces`` (shape), ``materials``, ``scene`` (what stands before the camera), ``sensors``, ``corruption``; and
  ``draws`` and ``arrays``, their tools.
- ``lists``: the published list files of CASIA-SURF, CeFA, WMCA and PADISI; ``images`` reads what they name, ``layouts``
  writes samples in the same form.
- ``data``: normalisation, missing modalities, augmentation, balanced batches.
- ``metrics``: rates and thresholds; live is the positive class, and a higher score is more live. ``report``: all of
  them for one system, thresholds from development data.
- ``pictures``: five figures.
- ``model``: one small transformer per modality, joined by gated adapters. ``train``: one system trained and scored,
  each part of the method on a switch.
"""
