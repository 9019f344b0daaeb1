# The converter: docker run --rm -v "$PWD:/data" --user "$(id -u):$(id -g)" robozarr convert libero_spatial --store libero_spatial.zarr
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN pip install --no-cache-dir --prefix=/install -c constraints.txt '.[convert]'

FROM python:3.12-slim-bookworm
COPY --from=build /install /usr/local
# not root; any other user works too (--user), so nothing is written outside the mounts and /tmp
RUN useradd --uid 1000 --create-home robozarr
USER robozarr
WORKDIR /data
ENTRYPOINT ["robozarr"]
CMD ["--help"]
