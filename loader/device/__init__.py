"""Move batches to the device: batch slots, copies, caches, and transforms there.

In: filled batches. Out: tensors on the device. The only code that knows CUDA.
Read first: ``batch_slots.BatchSlot``.
"""
