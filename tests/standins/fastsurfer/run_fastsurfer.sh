#!/bin/bash
# A stand-in for FastSurfer 2.4's run_fastsurfer.sh, for tests alone: options, files, exit codes, messages and conformed
# geometry as the real one's; labels by intensity and side instead of networks. What it cannot show is how good the real
# labels are. Environment: STANDIN_PYTHON (a Python with nibabel), STANDIN_UID, STANDIN_FAULT (checkpoints, killed,
# silent), STANDIN_SIDE (voxels along an edge of the conformed volume; the real one's 256 by default).
subject="" sd="" t1="" vox_size="min" device="auto" viewagg="auto" batch=1 threads=1 seg_only=0 root=0
usage() {
  cat <<EOF
Usage: run_fastsurfer.sh --sid <sid> --sd <sdir> --t1 <t1_input> [OPTIONS]
FLAGS:
  --sid <subjectID>       Subject ID
  --sd  <subjects_dir>    Output directory
  --t1  <T1_input>        T1 full head input, ABSOLUTE path
  --vox_size <0.7-1|min>  Forces processing at a specific voxel size
  --version <info>        Print version information and exit
  --seg_only              Run only FastSurferVINN
  --no_biasfield --no_cereb --no_hypothal
  --device --viewagg_device <str> --batch <n> --threads <n> --allow_root
EOF
}
[ $# -eq 0 ] && { usage; exit; }
while [ $# -gt 0 ]; do
  case "$1" in
    --sid) subject=$2; shift 2 ;;
    --sd) sd=$2; shift 2 ;;
    --t1) t1=$2; shift 2 ;;
    --vox_size) vox_size=$2; shift 2 ;;
    --device) device=$2; shift 2 ;;
    --viewagg_device) viewagg=$2; shift 2 ;;
    --batch) batch=$2; shift 2 ;;
    --threads) threads=$2; shift 2 ;;
    --seg_only) seg_only=1; shift ;;
    --no_biasfield | --no_cereb | --no_hypothal) shift ;;
    --allow_root) root=1; shift ;;
    --help | -h) usage; exit ;;
    --version) echo "2.4.2+standin"; exit ;;
    *) echo "ERROR: Flag '$1' unrecognized."; exit 1 ;;
  esac
done
if [ "$root" = 0 ] && [ "${STANDIN_UID:-$(id -u)}" = 0 ]; then
  echo "You are trying to run '$0' as root. We advice to avoid running FastSurfer as root, "
  echo "If you want to force running as root, you may pass --allow_root to run_fastsurfer.sh."
  exit 1
fi
[ -f "$t1" ] || { echo "ERROR: T1 image ($t1) could not be found. Must supply an existing T1 input."; exit 1; }
case "$t1$sd" in /*/*) ;; *) echo "ERROR: paths must be absolute"; exit 1 ;; esac
[ -n "$subject" ] || { echo "ERROR: must supply subject name via --sid"; exit 1; }
[ "$seg_only" = 1 ] || { echo "ERROR: no FreeSurfer license"; exit 1; }
[ -e "$sd/$subject" ] && { echo "ERROR: Running FastSurfer on top of an existing output directory."; exit 1; }
[ -n "${STANDIN_CALLS:-}" ] && echo "$subject $threads $device $viewagg $batch" >>"$STANDIN_CALLS"
mkdir -p "$sd/$subject/mri" "$sd/$subject/scripts"
case "${STANDIN_FAULT:-}" in
  checkpoints)
    echo "Could not find nor download checkpoints from ['https://zenodo']"
    echo "requests.exceptions.RequestException: No server reachable."
    echo "ERROR: FastSurfer asegdkt segmentation failed."
    exit 1 ;;
  killed) kill -9 $$ ;;
  silent) exit 0 ;;
esac
"${STANDIN_PYTHON:-python3}" "$(dirname "$0")/segment.py" "$t1" "$sd/$subject/mri" "$vox_size" "${STANDIN_SIDE:-256}" \
  2>&1 | tee "$sd/$subject/scripts/deep-seg.log"
if [ "${PIPESTATUS[0]}" -ne 0 ]; then
  echo "ERROR: FastSurfer asegdkt segmentation failed."
  exit 1
fi
