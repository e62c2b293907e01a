package process

// FolderName is for tests that look into the folder of an attempt.
var FolderName = folderName
