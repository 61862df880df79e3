# The image of every role: `api`, `migrate` and all other verbs as the user
# abax, and a worker as root by `abax-worker` (deploy/worker.sh says with which
# privileges, and why).
#
#   docker build -t abax .
#
# Both bases can be replaced by what a site or its mirror has:
#
#   docker build --build-arg RUST_IMAGE=… --build-arg BASE_IMAGE=… -t abax .
ARG RUST_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS source
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package abax-cli

FROM ${BASE_IMAGE}
# nft for the network of executions; the rest of a worker's needs is in Debian's
# essential packages.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates nftables \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 abax \
    && useradd --uid 10001 --gid 10001 --home-dir /var/lib/abax --create-home \
        --shell /usr/sbin/nologin abax
COPY --from=source /src/target/release/abax /usr/local/bin/abax
COPY deploy/worker.sh /usr/local/bin/abax-worker
USER abax
EXPOSE 8000
ENTRYPOINT ["abax"]
CMD ["--help"]
