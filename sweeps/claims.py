# %% [markdown]
# # Which claims of the literature hold?
#
# Each row is one claim about neural tangent kernels, wide networks or random recurrent networks. A row computes numbers and
# says beforehand which of them are accepted. The verdict follows from these alone (claims_judge.py):
#
# - *holds*: the interval of every number, as the claim states it, is accepted.
# - *holds in another normalisation*, *holds in a range*: one number as stated is not accepted. All numbers of the claim with
#   another factor, or under a further condition, are.
# - *false*: neither.
# - *open*: an interval lies partly inside.
#
# Intervals are 95 %, over at least ten seeds (Student's for means, order statistics for medians, bootstrap for exponents).
# Numbers without seeds are exact up to rounding. What was found is on docs/claims.md.
#
# `python sweeps/claims.py` runs all rows, in about ten minutes on two cores. `python sweeps/claims.py crossing commutator`
# runs these two, `--list` names all, and `--quick` takes small sizes.

# %%
import argparse
import importlib
import sys
import time

import jax
from claims_judge import CLAIMS, verdict

for rows in ("claims_layers", "claims_width", "claims_spectra", "claims_recurrent"):
    importlib.import_module(rows)


def judged(key: str, *, quick: bool = False) -> str:
    """Measure one row, print it, and return its verdict."""
    row, began = CLAIMS[key], time.perf_counter()
    print(f"\n{key}\n  claim: {row.text}\n  law: {row.law}", flush=True)
    found = row.run(quick)
    for title, checks in (("as stated", found.stated), (f"in {row.change}", found.changed), ("true instead", found.instead)):
        for check in checks:
            print(f"  {title}: {check}")
    said = verdict(found, row.change)
    print(f"  verdict: {said} ({time.perf_counter() - began:.1f} s)", flush=True)
    return said


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Measure claims of the literature, and print a verdict on each.")
    parser.add_argument("keys", nargs="*", metavar="KEY", help="rows to run (default: all)")
    parser.add_argument("--quick", action="store_true", help="small sizes, which do not settle every claim")
    parser.add_argument("--list", action="store_true", help="print the keys and the claims")
    given = parser.parse_args()
    unknown = [key for key in given.keys if key not in CLAIMS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; the keys are {', '.join(CLAIMS)}")
    if given.list:
        for key, row in CLAIMS.items():
            print(f"{key}: {row.text}")
        sys.exit()
    verdicts = {key: judged(key, quick=given.quick) for key in given.keys or CLAIMS}
    print("\n" + "\n".join(f"{key}: {said}" for key, said in verdicts.items()))
