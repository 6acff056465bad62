#!/bin/sh
# Makes the data set of this folder again, from SMILES to labels, with nothing but `mlff`.
# On two cores the DFT takes about half an hour and the rest half a minute; a stopped run continues
# where it was. The same versions of rdkit, tblite and pyscf give the same molecules and labels.
set -eu
cd "$(dirname "$0")"
MLFF=${MLFF:-mlff}

label() { # SMILES OUT METHOD CONFORMERS SEED [more options]
    smiles=$1 out=$2 method=$3 conformers=$4 seed=$5
    shift 5
    $MLFF label "$smiles" -o "$out" --method "$method" --conformers "$conformers" \
        --temperature 400 --seed "$seed" --force "$@"
}

# Fidelity 2: many cheap energies. Fidelity 1: many cheap energies, forces and charges.
label molecules_xtb.smi fid2.h5 gfn1-xtb 32 12 --labels energy
label molecules_xtb.smi fid1.h5 gfn2-xtb 32 11
# The same unseen molecules for every fidelity.
label molecules_test.smi test_fid2.h5 gfn1-xtb 30 23 --labels energy
label molecules_test.smi test_fid1.h5 gfn2-xtb 30 22
# Fidelity 0: few expensive labels.
label molecules_test.smi test_fid0.h5 pyscf:pbe/def2-svp 5 2
label molecules_dft.smi fid0.h5 pyscf:pbe/def2-svp 11 1
