// Calls limner.v1 over gRPC with code that protoc-gen-es generated, and prints what came back as one JSON object.
//
// node client.mjs URL generate REFERENCE.png | stream REFERENCE.png | invalid | digest

import { readFileSync } from "node:fs";
import { createHash } from "node:crypto";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { BadRequestSchema, ErrorInfoSchema } from "./build/google/rpc/error_details_pb.js";
import { CacheOutcome, ImageFormat, Sampler } from "./build/limner/v1/portrait_pb.js";
import { PortraitService } from "./build/limner/v1/portrait_service_pb.js";
import { ReferenceService } from "./build/limner/v1/reference_service_pb.js";

const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]);

const [url, command, path] = process.argv.slice(2);
const transport = createGrpcTransport({ baseUrl: url });
const portraits = createClient(PortraitService, transport);
const references = createClient(ReferenceService, transport);
const portrait = {
  prompt: "portrait in a garden, smiling, soft daylight",
  steps: 4,
  sampler: Sampler.DDIM,
  seed: 7n,
  format: ImageFormat.PNG,
};

// Reads signature, width and height from a PNG's first bytes.
function png(data) {
  const bytes = Buffer.from(data);
  return {
    signature: bytes.subarray(0, 8).equals(PNG),
    width: bytes.readUInt32BE(16),
    height: bytes.readUInt32BE(20),
    bytes: bytes.length,
  };
}

function summary(made) {
  return {
    seed: String(made.parameters.seed),
    steps: made.parameters.steps,
    cacheOutcome: CacheOutcome[made.reference.cacheOutcome],
    digest: made.reference.digest,
    totalSeconds: made.timings.totalSeconds,
  };
}

const commands = {
  async generate() {
    const image = readFileSync(path);
    const upload = await references.uploadReference({ image });
    const referenceDigest = createHash("sha256").update(image).digest("hex");
    const reply = await portraits.generate({ portrait: { ...portrait, referenceDigest } });
    const [first] = reply.images;
    return {
      digests: [referenceDigest, upload.reference.digest],
      taskId: reply.taskId,
      image: { ...png(first.data), claimed: [first.width, first.height], seed: String(first.seed) },
      summary: summary(reply.summary),
    };
  },

  async stream() {
    const referenceImage = readFileSync(path);
    const events = [];
    let image;
    let completed;
    for await (const { event } of portraits.generateStream({
      portrait: { ...portrait, referenceImage, imageCount: 2 },
      previewInterval: 2,
    })) {
      events.push(event.case);
      if (event.case === "image") image = png(event.value.data);
      if (event.case === "completed") completed = summary(event.value);
    }
    return { events, image, summary: completed };
  },

  async invalid() {
    return failure(portraits.generate({ portrait: { prompt: "", steps: 100000 } }));
  },

  async digest() {
    return failure(portraits.generate({ portrait: { ...portrait, referenceDigest: "0".repeat(64) } }));
  },
};

// Waits for a call to fail and decodes google.rpc's details.
async function failure(call) {
  try {
    await call;
  } catch (thrown) {
    const error = ConnectError.from(thrown);
    const [info] = error.findDetails(ErrorInfoSchema);
    const [bad] = error.findDetails(BadRequestSchema);
    return {
      code: Code[error.code],
      message: error.rawMessage,
      reason: info?.reason,
      domain: info?.domain,
      metadata: info?.metadata,
      violations: bad?.fieldViolations.map(({ field, description }) => ({ field, description })),
    };
  }
  throw new Error("the call did not fail");
}

console.log(JSON.stringify(await commands[command]()));
