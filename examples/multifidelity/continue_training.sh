#!/bin/sh
# Start from trained weights instead of random ones, with a smaller learning rate. The loaded model
# brings its architecture along, so that --model is not needed.
set -eu
cd "$(dirname "$0")"
MLFF=${MLFF:-mlff}
OUT=${OUT:-out/run_example}

"$MLFF" train \
    --config train.yaml \
    --load "$OUT/model.pt" \
    --save "$OUT/continued.pt" \
    data.fidelity_datasets.0=data/fid0.h5 \
    data.fidelity_datasets.1=data/fid1.h5 \
    data.fidelity_datasets.2=data/fid2.h5 \
    data.fidelity_weights.0=1.0 \
    data.fidelity_weights.1=1.0 \
    data.fidelity_weights.2=1.0 \
    data.sae.energy.files.0="$OUT/sae_fid0.yaml" \
    data.sae.energy.files.1="$OUT/sae_fid1.yaml" \
    data.sae.energy.files.2="$OUT/sae_fid2.yaml" \
    scheduler.kwargs.start_value=2.0e-4 \
    trainer.epochs=10 \
    "$@"
