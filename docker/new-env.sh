#!/bin/sh
# Writes .env for docker compose: .env.example, with a new password wherever it wants one. What only
# you can know is left empty, and named at the end.
set -eu
umask 077
cd "$(dirname "$0")/.."
if [ -e .env ]; then
  echo ".env exists, and its passwords may be in use. To begin anew, move it away first." >&2
  exit 1
fi

secret() {
  od -An -N24 -tx1 /dev/urandom | tr -d ' \n'
}

trap 'rm -f .env.new' EXIT
while IFS= read -r line; do
  case $line in
    *_PASSWORD= | LETHE_ADMIN_KEY=) echo "$line$(secret)" ;;
    *) echo "$line" ;;
  esac
done < .env.example > .env.new
mv .env.new .env
echo "Wrote .env. Fill in: $(grep -E '^[A-Z_]+=$' .env | tr -d '=' | tr '\n' ' ')"
