#!/bin/sh
# From labels to a verified artifact per fidelity, step by step; `make demo` does the same and more.
set -eu
cd "$(dirname "$0")"
MLFF=${MLFF:-mlff}
OUT=${OUT:-out/run_example}
mkdir -p "$OUT"

# Step 1: atomic energies of each fidelity
for k in 0 1 2; do
    "$MLFF" calc-sae data/fid$k.h5 "$OUT/sae_fid$k.yaml" --force
done

# Step 2: one model from all fidelities. Interrupted, it continues when the script runs again.
[ -e "$OUT/model.pt" ] || "$MLFF" train \
    --config train.yaml \
    --model model.yaml \
    --save "$OUT/model.pt" \
    data.fidelity_datasets.0=data/fid0.h5 \
    data.fidelity_datasets.1=data/fid1.h5 \
    data.fidelity_datasets.2=data/fid2.h5 \
    data.fidelity_weights.0=1.0 \
    data.fidelity_weights.1=1.0 \
    data.fidelity_weights.2=1.0 \
    data.sae.energy.files.0="$OUT/sae_fid0.yaml" \
    data.sae.energy.files.1="$OUT/sae_fid1.yaml" \
    data.sae.energy.files.2="$OUT/sae_fid2.yaml" \
    "$@"

# Step 3: an artifact per fidelity. PBE gets its D3(BJ); GFN1 and GFN2 contain theirs already.
"$MLFF" compile --weights "$OUT/model.pt" --output "$OUT/compiled" --fidelity-level 0 \
    --dispersion d3bj --force
"$MLFF" compile --weights "$OUT/model.pt" --output "$OUT/compiled" --fidelity-level 1 --force
"$MLFF" compile --weights "$OUT/model.pt" --output "$OUT/compiled" --fidelity-level 2 --force

# Step 4: errors on molecules that no training set holds
"$MLFF" evaluate "$OUT/model.pt" data/test_fid0.h5 data/test_fid1.h5 data/test_fid2.h5 \
    -o "$OUT/errors.json" --force
