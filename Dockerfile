# The image of Halligan: Node, its packages and the built program, and nothing to build or to install with.
#
#   docker build -t halligan .
#   docker run --read-only --cap-drop ALL --security-opt no-new-privileges --stop-timeout 30 \
#     -v /etc/halligan:/etc/halligan:ro -v halligan-checkpoints:/var/lib/halligan/checkpoints halligan serve
#
# It runs as 65532, who owns nothing in it but the folder of the checkpoints, and writes nowhere else. docker-compose.yml starts a whole house of it.

FROM node:24.21.0-bookworm-slim AS build
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build

# What runs needs no optional package: they are a Node and a PostgreSQL of their own for machines that have none.
FROM node:24.21.0-bookworm-slim AS packages
WORKDIR /build
COPY package.json package-lock.json ./
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund

FROM node:24.21.0-bookworm-slim
LABEL org.opencontainers.image.title="Halligan" \
      org.opencontainers.image.description="Break-glass and just-in-time access: short-lived credentials, approved, revoked on time, proven gone, witnessed." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /usr/local/bin/yarn* /opt/yarn-* \
 && install -d -o 65532 -g 65532 -m 0700 /var/lib/halligan /var/lib/halligan/checkpoints
WORKDIR /app
COPY --from=packages /build/node_modules ./node_modules
COPY --from=build /build/dist ./dist
COPY package.json LICENSE ./
COPY bin ./bin
COPY migrations ./migrations
ENV NODE_ENV=production
ENV HALLIGAN_CONFIG=/etc/halligan/halligan.yaml
USER 65532:65532
STOPSIGNAL SIGTERM
EXPOSE 8300
ENTRYPOINT ["node", "/app/bin/halligan.js"]
CMD ["serve"]
