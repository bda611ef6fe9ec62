// The `ollama` package: a stream, an embedding, a refusal. BASE, KEY ("" is none), MODEL, OTHER.
import { Ollama } from "ollama";

const { BASE, KEY, MODEL, OTHER } = process.env;
const client = new Ollama({ host: BASE, headers: KEY ? { Authorization: `Bearer ${KEY}` } : {} });
const messages = [{ role: "user", content: "Grüße, 世界 🦙 \u2028" }];

let parts = 0;
let text = "";
for await (const part of await client.chat({ model: MODEL, messages, stream: true })) {
  parts += 1;
  text += part.message.content;
}
const { embeddings } = await client.embed({ model: MODEL, input: ["one", "two"] });
const refused = await client.chat({ model: OTHER, messages }).then(
  () => null,
  (error) => ({ status: error.status_code, message: error.message }),
);
console.log(JSON.stringify({ parts, text, embeddings: embeddings.length, refused }));
