"""What the keys of a saved profile mean, with their units: comments for its reader."""

from typing import Final

__all__ = ["COMMENTS"]

COMMENTS: Final = {
    "usable_threads": "threads that one step should use",
    "memory_bytes": "bytes that a process may use",
    "read_bandwidth": "bytes per second, read from memory by 1, 2, ... threads: the median pass",
    "slow_read_bandwidth": "bytes per second, likewise: what nine of ten passes reached",
    "watts": "watts that the busy processor draws beyond idle",
    "energy_counter": "a file; empty where none can be read and energy is estimated",
    "estimated": "true where the figures come from public sources, not from a probe",
    "affinity_cpus": "logical processors that the process may run on; 0: not known",
    "quota_cpus": "processors' worth of time that is granted; 0: no limit",
    "free_bytes": "bytes of memory that were free; 0: not known",
    "storage_read": "bytes per second; 0: not measured",
    "storage_write": "bytes per second until they are on the storage; 0: not measured",
    "power_source": "mains, battery or unknown",
    "temperature_c": "degrees Celsius of the hottest sensor",
    "others_busy": "share of the processors that other programs kept busy as it was probed",
    "caches": "caches for data, the nearest first: size_bytes of one that shared_by threads share",
    "matrix_rates": "products of activations (rows, inputs) and weights (outputs, inputs); "
    "rate: operations per second, 2 x rows x inputs x outputs in one product",
    "providers": "what else may compute; falls_back: operators that it leaves to the processor",
    "energy_counters": "what tells energy or power; a path with x between two files is a product",
    "sources": "where the figures come from",
}
