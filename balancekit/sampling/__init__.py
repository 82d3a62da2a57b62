"""Sample plans: which samples a modality should see more often, or alone. Indices come back, never a data set.

SMV: Wei et al., "Enhancing Multimodal Cooperation via Sample-level Modality Valuation", CVPR 2024 (arXiv 2309.06255).
Data Remixing: Ma et al., "Improving Multimodal Learning Balance and Sufficiency through Data Remixing", ICML 2025
(arXiv 2506.11550).

==================  ==================================================================================================
``smv_values``      predictions of every subset of the modalities → what each modality is worth in each sample
``smv_copies``      these values → how often a sample is to be seen by a modality alone, the lower the more often
``smv_weights``     the same values → one probability of that a modality, for all samples alike
``smv_plan``        how often → rows of a plan: the index of a sample, and the modalities that stay
``remix_assign``    logits of each modality → the modality that each sample is hardest for
``remix_batches``   that → batches of one modality each, for ``DataLoader(batch_sampler=...)``
==================  ==================================================================================================

An epoch of SMV::

    values = smv_values(predictions, labels)
    copies = smv_copies(values)                                                         sample by sample, or
    copies = torch.bernoulli(smv_weights(values).expand(len(dataset), -1)).long()       modality by modality
    index, keep = smv_plan(copies)
    loader = DataLoader(dataset, sampler=[*zip(index.tolist(), keep)])

where ``dataset[i, keep]`` masks the modalities that `keep` does not name. A plan is in the order of the samples;
shuffle its rows as you like.
"""

from balancekit.sampling._remix import remix_assign, remix_batches
from balancekit.sampling._smv import smv_copies, smv_plan, smv_values, smv_weights

__all__ = ["remix_assign", "remix_batches", "smv_copies", "smv_plan", "smv_values", "smv_weights"]
