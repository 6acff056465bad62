#!/bin/sh
# One fidelity first, then a second one on top of it, within a minute. What becomes of the weights
# stands in docs/transfer.md.
set -eu
cd "$(dirname "$0")"
MLFF=${MLFF:-mlff}
OUT=${OUT:-out/add_fidelity}
mkdir -p "$OUT"

# short on purpose; a real training leaves these to train.yaml
SHORT="data.samplers.train.kwargs.batch_size=16 data.samplers.train.kwargs.batches_per_epoch=20
    data.samplers.train.kwargs.split=1 trainer.epochs=4"

for k in 0 1; do
    "$MLFF" calc-sae data/fid$k.h5 "$OUT/sae_fid$k.yaml" --force
done

# Step 1: the best data alone, with one readout
[ -e "$OUT/single.pt" ] || "$MLFF" train \
    --config train.yaml \
    --model model.yaml \
    --save "$OUT/single.pt" \
    data.fidelity_datasets.0=data/fid0.h5 \
    data.sae.energy.files.0="$OUT/sae_fid0.yaml" \
    use_fidelity_readouts=false \
    $SHORT "$@"

# Step 2: two fidelities. Both start with the embedding and the readout of the first; the loaded
# model describes itself, so that --model is not needed. --dry-run shows what would be taken over.
two() {
    "$MLFF" train \
        --config train.yaml \
        --load "$OUT/single.pt" \
        data.fidelity_datasets.0=data/fid0.h5 \
        data.fidelity_datasets.1=data/fid1.h5 \
        data.fidelity_weights.0=1.0 \
        data.fidelity_weights.1=1.0 \
        data.sae.energy.files.0="$OUT/sae_fid0.yaml" \
        data.sae.energy.files.1="$OUT/sae_fid1.yaml" \
        scheduler.kwargs.start_value=5.0e-4 \
        $SHORT "$@"
}
[ -e "$OUT/two.pt" ] || two --save "$OUT/two.pt" "$@"

# Step 3: the same with a frozen backbone: embeddings and readouts learn, what the fidelities share
# stays as the first training left it
[ -e "$OUT/frozen.pt" ] || two --save "$OUT/frozen.pt" 'optimizer.force_no_train=[backbone.*]' "$@"

"$MLFF" evaluate "$OUT/single.pt" 0=data/test_fid0.h5 -o "$OUT/errors_single.json" --force
for model in two frozen; do
    "$MLFF" evaluate "$OUT/$model.pt" 0=data/test_fid0.h5 1=data/test_fid1.h5 \
        -o "$OUT/errors_$model.json" --force
done
