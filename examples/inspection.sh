#!/usr/bin/env bash
# The inspection of solar cells: from images to decisions, with doubtful labels, costs, unknown images and sorting.
#
#   examples/inspection.sh [FOLDER]      FOLDER: where to write (default: inspection-out)
#
# Requires: pip install 'alexnet[demo]'. It trains six networks. After an interruption the same command continues.
# RECIPE adds options to the trainings, such as RECIPE="--epochs 2" for a trial.
set -euo pipefail

out=${1:-inspection-out}
recipe=(--flip square ${RECIPE:-})
documentation=$(cd "$(dirname "$0")/../docs" && pwd)
mkdir -p "$out"
cd "$out"

step() { printf '\n== %s\n' "$*" >&2; }

step "1. Prepare: a table of cells, with the raters' confidence in each label"
if [ ! -e data/dataset.json ]; then
    python -c "
from pathlib import Path
from alexnet.experiments.solar_cells import write_source
write_source(Path('cells.csv'), confidences=True)"
    alexnet prepare cells.csv data --split val=0.2
fi

step "2. Cross-validation: what accuracy to expect, and a prediction of every training cell"
alexnet crossval data --folds 5 --out cv --views 1 "${recipe[@]}" | tee crossval.txt

step "3. Wrong labels: the cells to look at first"
alexnet labels cv --csv --top 50 > suspects.csv
head -4 suspects.csv

step "4. Train on all training cells"
if [ -e run ]; then alexnet train data --out run --resume; else alexnet train data --out run "${recipe[@]}"; fi

step "5. Costs: a missed defect costs ten times a false positive"
cat > costs.csv <<'CSV'
,defective,functional,unsure
defective,0,10,0.5
functional,1,0,0.5
CSV
alexnet decide run --data data --costs costs.csv --unknown-rate 0.02 --unknown-method mahalanobis | tee costs.txt
alexnet evaluate run --data data --costs costs.csv --views 1 --json > costs.json

step "6. Recall: at least 90% of the defective cells, guaranteed"
rm -rf recall-run
cp -r run recall-run
alexnet decide recall-run --data data --recall defective=0.9 | tee recall.txt
alexnet evaluate recall-run --data data --views 1 --json > recall.json

step "7. Unknown: what is no solar cell"
alexnet predict run "$documentation/report.png" "$documentation/serve.png" | tee unknown.txt

step "8. Sort what arrives, and take it back"
rm -rf arrivals sorted  # of an interrupted call
mkdir arrivals
python - <<'PYTHON'
import csv, shutil
cells = [row["path"] for row in csv.DictReader(open("cells.csv")) if row["split"] == "test"]
for path in cells[:60]:
    shutil.copy(path, "arrivals")
PYTHON
alexnet predict run arrivals --json > decisions.json
alexnet sort run arrivals --to sorted --move | tee sorted.txt
cp sorted/sort.csv sorted.csv
alexnet sort --undo --to sorted
[ "$(find arrivals -type f | wc -l)" -eq 60 ]

step "9. Compare: all training cells against four fifths of them"
alexnet compare run cv/fold-1 --data data --views 1 | tee compare.txt
rm -rf recall-run
