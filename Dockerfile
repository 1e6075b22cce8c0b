# fastsample on a CPU; for a GPU: docker build --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN pip install --no-cache-dir torch torchvision --index-url "$TORCH_INDEX"
WORKDIR /src
COPY pyproject.toml README.md LICENSE __init__.py __main__.py py.typed ./
COPY bench bench
COPY datasets datasets
COPY models models
COPY results results
COPY solvers solvers
RUN pip install --no-cache-dir . && rm -rf /src
# Caches and tables go where the user's files are, so that they outlive the container.
ENV FASTSAMPLE_HOME=/work/.fastsample
WORKDIR /work
ENTRYPOINT ["fastsample"]
