# shellcheck shell=bash disable=SC2034  # read by the recipes
# One GPU of 80 GB or more: as gpu1, with the optimiser on the card.
: "${OFFLOAD=}"
source "$(dirname "${BASH_SOURCE[0]}")/gpu1.sh"
