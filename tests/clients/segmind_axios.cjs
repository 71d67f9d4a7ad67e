// The documentation's sample of sd1.5-img2img: axios, a picture read from a file, the picture as the answer.
// node segmind_axios.cjs HOST API_KEY [PICTURE]; without a picture it sends what the page prints.
const axios = require('axios');
const fs = require('fs');
const path = require('path');

const [host, api_key, picture] = process.argv.slice(2);
const url = `${host}/v1/sd1.5-img2img`;

async function toB64(imgPath) {
  const data = fs.readFileSync(path.resolve(imgPath));
  return Buffer.from(data).toString('base64');
}

(async function () {
  const data = {
    "image": picture ? await toB64(picture) : "toB64('https://www.segmind.com/sd-img2img-input.jpeg')",
    "samples": 1,
    "prompt": "A fantasy landscape, trending on artstation, mystical sky",
    "negative_prompt": "nude, disfigured, blurry",
    "scheduler": "DDIM",
    "num_inference_steps": 25,
    "guidance_scale": 10.5,
    "strength": 0.2,
    "seed": 98877465625,
    "img_width": 512,
    "img_height": 512,
    "base64": false
  };
  try {
    const response = await axios.post(url, data, { headers: { 'x-api-key': api_key }, responseType: 'arraybuffer' });
    console.log(JSON.stringify({
      is_jpeg: response.headers['content-type'] === 'image/jpeg',
      remaining: Number(response.headers['x-remaining-credits']),
      picture: response.data.toString('base64'),
    }));
  } catch (error) {
    console.log(JSON.stringify({ status: error.response.status, body: JSON.parse(error.response.data.toString()) }));
  }
})();
