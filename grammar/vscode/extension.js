// Starts `moec lsp` for .moe files, and shows files of the standard library, which the compiler carries inside.
const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

exports.activate = async (context) => {
  const command = workspace.getConfiguration("moe").get("path", "moec");
  client = new LanguageClient(
    "moe",
    "moe",
    { command, args: ["lsp"] },
    {
      documentSelector: [{ language: "moe", scheme: "file" }, { language: "moe", scheme: "untitled" }],
      initializationOptions: { libraryUri: true },
    },
  );
  const library = {
    provideTextDocumentContent: (uri) => client.sendRequest("moec/libraryText", { uri: uri.toString(true) }),
  };
  context.subscriptions.push(workspace.registerTextDocumentContentProvider("moec-std", library));
  await client.start();
};

exports.deactivate = () => client?.stop();
