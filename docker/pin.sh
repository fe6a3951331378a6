#!/bin/sh
# Writes behind each image of docker-compose.yml and the Dockerfiles the digest that its tag stands
# for now, so that the next build and start take these very bytes. Needs docker with buildx, and the
# network, but no running engine. Run it again for an update: then look at what changed.
set -eu
cd "$(dirname "$0")/.."
files="docker-compose.yml docker/api.Dockerfile docker/worker.Dockerfile"

# Ours are built here and have no tag.
images=$(sed -nE 's/^ *(image:|FROM) ([a-z0-9./-]+:[A-Za-z0-9._-]+).*/\2/p' $files | sort -u)
for image in $images; do
  digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image")
  case $digest in
    sha256:????????????????????????????????????????????????????????????????) ;;
    *) echo "The registry named no digest for $image: $digest" >&2; exit 1 ;;
  esac
  for file in $files; do
    sed -E "s|^( *(image:\|FROM) )$image(@sha256:[0-9a-f]{64})?( .*)?\$|\1$image@$digest\4|" \
      "$file" > "$file.new"
    cat "$file.new" > "$file"
    rm "$file.new"
  done
  echo "$image is $digest"
done
