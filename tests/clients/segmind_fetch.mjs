// A browser-style caller of kandinsky2.2-txt2img that always wants base64 and sends keys of other vendors.
// node segmind_fetch.mjs HOST API_KEY
const [host, apiKey] = process.argv.slice(2);

const response = await fetch(`${host}/v1/kandinsky2.2-txt2img`, {
  method: 'POST',
  headers: { 'x-api-key': apiKey, 'Content-Type': 'application/json', Accept: 'application/json' },
  body: JSON.stringify({
    prompt: 'a red fox in the snow',
    samples: 2,
    num_inference_steps: 20,
    prior_steps: 2,
    img_width: 512,
    img_height: 512,
    size: '512x512',
    style: 'vivid',
    refiner: false,
    base64: true,
  }),
});
const body = await response.json();
console.log(JSON.stringify({ status: response.status, body }));
