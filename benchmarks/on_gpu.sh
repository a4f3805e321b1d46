#!/usr/bin/env bash
# Everything that needs a GPU, the most valuable first, in as many short calls as it takes.
#
#   benchmarks/on_gpu.sh --list                        the jobs, and which are finished
#   benchmarks/on_gpu.sh --seconds 560                 as many as fit; the same command again goes on
#   benchmarks/on_gpu.sh --seconds 300 kmeans predict  these, in this order
#   benchmarks/on_gpu.sh --device cpu --tiny           every job in small, to see that the script works
#
# Beforehand, where there is a network and the speech (about 170 MB of Opus; the folder is ignored by git):
#
#   python benchmarks/pack_speech.py split speech/metadata.csv runs/parts --mebibytes 30
#   cp -r WHISPER_FOLDER runs/teacher          # config, weights and preprocessor_config.json of Whisper base
#   pip download -d runs/wheels --no-deps --only-binary=:all: --python-version 3.12 --platform manylinux2014_x86_64 \
#       datasets evaluate soundfile soxr       # and what else `pip check` misses there, such as faiss-cpu
#
# and, for the verdict on the method, the corpora at runs/corpora/emodb and runs/corpora/ravdess.
#
# Carry to the machine with the GPU: the checkout, runs/wheels and runs/corpora. For the pre-training runs/teacher with
# one of runs/parts/part-*, the other parts two at a time if only small packages travel. The jobs take the parts that are
# there, so bring all before the first pre-training, with `benchmarks/on_gpu.sh --list` as a command that does nothing
# else. Then
#
#   python3 -m pip install --no-index --no-deps --target /tmp/site runs/wheels/*.whl
#   PYTHONPATH=/tmp/site OUT=/where/results/go benchmarks/on_gpu.sh --seconds 560
#
# Work is in runs/gpu (a job that ran out of time goes on there, if it can), finished results in runs/gpu/results. At
# the end they are copied to benchmarks/results/gpu, or into $OUT as pieces of 15 MiB:
#
#   cat OUT/on_gpu.tar.gz.part-* | tar xz -C benchmarks/results/gpu
#
# A job with a finished NAME.done in either place is skipped. Settings by environment: PYTHON, PARTS, CORPORA, TEACHER,
# WORK, RUNS_AT_ONCE (folds of the verdict side by side, 4), EPOCHS (of the last iteration of a pre-training, 20), WORKERS
# (loader processes, the cores less two, at most 14).
# It ends with status 1 if a job failed or lacked something; one that has no time left is said to wait, with status 0.

set -u -o pipefail
cd "$(dirname "$0")/.." || exit 1

JOBS=(tests training-base training-large cache predict kmeans verdict-emodb verdict-ravdess kmeans-iemocap pretrain-small
    pretrain-mini)
declare -A LIMITS=([pretrain-small]=550 [pretrain-mini]=550 [tests]=240 [training-base]=150 [training-large]=200
    [cache]=90 [predict]=150 [kmeans]=120 [kmeans-iemocap]=200 [verdict-emodb]=550 [verdict-ravdess]=550)

PYTHON=${PYTHON:-python3}
WORK=${WORK:-runs/gpu}
PARTS=${PARTS:-runs/parts}
CORPORA=${CORPORA:-runs/corpora}
TEACHER=${TEACHER:-runs/teacher}
KEPT=benchmarks/results/gpu
device=cuda tiny= seconds=560 list= chosen=()

fail() { echo "on_gpu.sh: $*" >&2; exit 2; }

while (($#)); do
    case $1 in
        --list) list=yes ;;
        --tiny) tiny=yes ;;
        --device) device=${2:-}; shift ;;
        --seconds) seconds=${2:-}; shift ;;
        -*) fail "unknown option $1; there are --list, --tiny, --device, --seconds" ;;
        *) [[ -n ${LIMITS[$1]:-} ]] || fail "unknown job $1; there are ${JOBS[*]}"; chosen+=("$1") ;;
    esac
    shift || fail "a value is missing at the end"
done
[[ $device == cpu || $device == cuda ]] || fail "--device is '$device', expected cpu or cuda"
[[ $seconds =~ ^[0-9]+$ ]] || fail "--seconds is '$seconds', expected a whole number"
((${#chosen[@]})) || chosen=("${JOBS[@]}")
if [[ $tiny ]]; then WORK=$WORK-tiny KEPT=$WORK/kept; fi
RESULTS=$WORK/results

finished() { [[ -e $RESULTS/$1.done || -e $KEPT/$1.done ]]; }

if [[ $list ]]; then
    for job in "${chosen[@]}"; do
        if finished "$job"; then state=finished; else state=open; fi
        printf '%-16s %4d s  %s\n' "$job" "${LIMITS[$job]}" "$state"
    done
    exit 0
fi

mkdir -p "$RESULTS" || exit 1
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
cores=$(nproc)
WORKERS=${WORKERS:-$((cores > 16 ? 14 : cores > 2 ? cores - 2 : 1))}

environment() {
    date -u +%FT%TZ
    git rev-parse HEAD 2>/dev/null || echo "no commit known"
    if command -v nvidia-smi >/dev/null; then nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv
    else echo "no nvidia-smi"; fi
    echo "$cores cores, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)"
    "$PYTHON" - <<'END'
import platform
from importlib.metadata import PackageNotFoundError, version

print("python", platform.python_version())
for name in ("torch", "transformers", "accelerate", "datasets", "numpy", "soundfile", "scikit-learn", "faiss-cpu"):
    try:
        print(name, version(name))
    except PackageNotFoundError:
        print(name, "is not installed")
END
}

pretraining() { # JOB: a recipe of that name on the parts that are there, more epochs and larger batches
    local epochs=${EPOCHS:-20} folder=$WORK/$1 speech=$WORK/speech teacher=$TEACHER
    local settings=(arguments.batch_seconds=160 iterations.0.num_train_epochs=2 arguments.save_steps=200
        arguments.dataloader_num_workers="$WORKERS" iterations.1.dataloader_num_workers="$WORKERS")
    if [[ $tiny ]]; then
        epochs=1 teacher=$WORK/teacher
        [[ -e $speech/metadata.csv ]] || PYTHONPATH=$PYTHONPATH:tests "$PYTHON" -c "from pathlib import Path
from pretrainings import write_speech
from teachers import make_teacher
make_teacher('whisper', Path('$teacher'))
write_speech(Path('$speech'))" || return 1
        settings=(arguments.batch_seconds=2 arguments.bf16=false data.dev_speakers=1 'data.hours_of={}'
            'backbone.conv_dim=[8,8,8]' backbone.hidden_size=16 backbone.num_attention_heads=2
            backbone.intermediate_size=32 backbone.num_conv_pos_embeddings=4
            backbone.num_conv_pos_embedding_groups=2 iterations.1.dataloader_num_workers=0)
    else
        [[ -e $teacher/config.json ]] || { echo "lacks the teacher: no $teacher/config.json (TEACHER=FOLDER)"; return 1; }
        compgen -G "$PARTS/*/metadata.csv" >/dev/null || { echo "lacks speech: no $PARTS/*/metadata.csv"; return 1; }
        # Parts that come later would change a pre-training that has begun.
        [[ -e $speech/metadata.csv ]] || "$PYTHON" benchmarks/pack_speech.py join "$PARTS" "$speech" || return 1
    fi
    [[ $device == cuda ]] || settings+=(arguments.use_cpu=true)
    settings+=(corpus.root="$speech/metadata.csv" iterations.0.teacher="$teacher" teacher_states="$WORK/states"
        iterations.1.num_train_epochs="$epochs")
    local sets=()
    for setting in "${settings[@]}"; do sets+=(--set "$setting"); done
    "$PYTHON" -m gmp_atl_hf.cli pretrain "recipes/$1.yaml" --output-dir "$folder" "${sets[@]}" || return 1
    mkdir -p "$RESULTS/$1" && cp -r "$folder/model" "$folder/report.json" "$RESULTS/$1/"
}

verdict() { # RECIPE CORPUS: the method against its parts on `small`, three seeds
    local corpus=$CORPORA/$2 folder=$WORK/verdict-$2
    local settings=(name="verdict-$2" backbone=small final=false 'variants=[direct, windows, gmp-atl, multitask-only]')
    for stage in multitask retrain finetune; do settings+=("stages.$stage.bf16=true"); done
    if [[ $tiny ]]; then
        corpus=$WORK/$2
        PYTHONPATH=$PYTHONPATH:tests "$PYTHON" -c "from pathlib import Path
from runs import write_corpus
write_corpus(Path('$corpus'))" || return 1
        settings+=('corpus={name: folder, speaker: "(?P<speaker>(?P<gender>[fm])\\d)_\\d+\\.wav$"}' labels=null 'seeds=[0]'
            'protocol={kind: group-k-fold, folds: 2, dev_speakers: 1}' 'pseudo_labels.clusters=[2]' backbone=mini)
        for stage in multitask retrain finetune; do
            settings+=("stages.$stage.bf16=false" "stages.$stage.num_train_epochs=1")
        done
    fi
    [[ -d $corpus ]] || { echo "lacks the corpus: no $corpus (CORPORA=FOLDER)"; return 1; }
    if [[ $device == cpu ]]; then
        for stage in multitask retrain finetune; do settings+=("stages.$stage.use_cpu=true"); done
    fi
    local sets=()
    for setting in "${settings[@]}" corpus.root="$corpus"; do sets+=(--set "$setting"); done
    local kept
    mkdir -p "$RESULTS/verdict-$2" && kept=$(realpath "$RESULTS/verdict-$2") || return 1
    "$PYTHON" -m gmp_atl_hf.cli run "recipes/$1.yaml" --output-dir "$folder" --jobs "${RUNS_AT_ONCE:-4}" "${sets[@]}" &&
        cp "$folder"/report.* "$folder/recipe.yaml" "$kept/" &&
        (cd "$folder" && find . -name predictions.jsonl -exec cp --parents {} "$kept/" \;)
}

training() { # SHAPE [OPTION...]
    local shape=$1
    shift
    local options=(--device "$device" --shape "$shape")
    if [[ $tiny ]]; then options=(--device "$device" --shape tiny --clips 4 --clips-per-step 2 --steps 1 --repeats 1)
    else options+=(--full --bf16 --clips 700 --repeats 3); fi
    "$PYTHON" benchmarks/training.py "${options[@]}" "$@"
}

kmeans() { # OPTION...: scikit-learn's published settings take minutes
    if [[ $tiny ]]; then set -- --frames 2000 --channels 8 --clusters 4; fi
    "$PYTHON" benchmarks/kmeans.py "$@" --without published faiss_all_frames
}

run_job() {
    case $1 in
        pretrain-*) pretraining "$1" ;;
        verdict-emodb) verdict emodb-mini emodb ;;
        verdict-ravdess) verdict ravdess ravdess ;;
        tests) if [[ $tiny ]]; then "$PYTHON" -m pytest -q --collect-only tests/test_gpu.py
            else "$PYTHON" -m pytest -q tests/test_gpu.py; fi ;;
        training-base) training base ;;
        training-large) training large ;;
        cache) if [[ $tiny ]]; then training base --cache-only; else training base --full --clips 2000 --cache-only; fi ;;
        predict) if [[ $tiny ]]; then "$PYTHON" benchmarks/predict.py --shape mini --clips 2 --repeats 1 --device "$device"
            else "$PYTHON" benchmarks/predict.py --full --device "$device" --precisions float32 bfloat16; fi ;;
        kmeans) kmeans --full --clusters 500 --repeats 3 ;;
        kmeans-iemocap) kmeans --frames 1250000 --channels 768 --clusters 500 ;;
    esac
}

deliver() { # Results of all calls so far, also of jobs that were stopped.
    if [[ ${OUT:-} && ! $tiny ]]; then
        mkdir -p "$OUT" && tar cz -C "$RESULTS" . | split -b 15M - "$OUT/on_gpu.tar.gz.part-"
    else
        mkdir -p "$KEPT" && cp -r "$RESULTS/." "$KEPT/"
    fi || { echo "on_gpu.sh: the results could not be copied, they are in $RESULTS" >&2; failed=1; }
}

failed=0
environment >"$RESULTS/environment-$(date -u +%Y%m%dT%H%M%S).txt" 2>&1
if [[ $device == cuda ]] && ! "$PYTHON" -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; then
    fail "torch sees no GPU; --device cpu --tiny tries the script out"
fi
trap 'deliver; exit 143' TERM INT

for job in "${chosen[@]}"; do
    if finished "$job"; then echo "$job: finished before"; continue; fi
    left=$((seconds - SECONDS))
    if ((left < 20)); then echo "$job: waits for the next call, $left s are left"; continue; fi
    limit=$((left - 10 < LIMITS[$job] ? left - 10 : LIMITS[$job]))
    echo "$job: at most $limit s"
    export -f run_job pretraining verdict training kmeans
    export device tiny PYTHON WORK PARTS CORPORA TEACHER RESULTS WORKERS
    begun=$SECONDS
    timeout --signal=TERM --kill-after=8 "$limit" bash -c 'run_job "$1"' bash "$job" 2>&1 |
        tee -a "$RESULTS/$job.log" | tail -n 4
    status=${PIPESTATUS[0]}
    took=$((SECONDS - begun))
    if ((status == 0)); then
        echo "$took s in the last call" >"$RESULTS/$job.done"
        echo "$job: finished in $took s"
    elif ((status == 124 || status == 137)); then
        echo "$job: stopped after $took s; the next call goes on or begins again"
    else
        echo "$job: FAILED with status $status after $took s, see $job.log"
        failed=1
    fi
done
deliver
exit $failed
