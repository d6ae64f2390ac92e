-- As much of the S3 protocol as uploads and downloads need; signatures are not looked at.
--
-- Bodies sent to a bucket whose name begins with "kept" are written to files, which nginx then
-- serves by itself; those sent to any other bucket are read and dropped.

local objects = ngx.shared.objects -- "bucket/key" -> "size\tetag\ttime\tmetadata"
-- upload id -> metadata; "id/number" -> "size\toffset"; "id/length" -> that of part 1
local uploads = ngx.shared.uploads

local PIECE = 1048576
local METADATA = "x-amz-meta-"

local M = {}

local function answer(status, body, headers)
    ngx.status = status
    for name, value in pairs(headers or {}) do
        ngx.header[name] = value
    end
    ngx.header.content_length = #(body or "")
    if body and body ~= "" then
        ngx.header.content_type = "application/xml"
        ngx.print(body)
    end
    return ngx.exit(ngx.OK)
end

local function refuse(status, code)
    local body = "<?xml version=\"1.0\"?><Error><Code>" .. code .. "</Code><Message>" .. code ..
        "</Message></Error>"
    return answer(status, ngx.req.get_method() ~= "HEAD" and body or nil)
end

local function escaped(text)
    local names = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;" }
    return (text:gsub("[&<>]", names))
end

local function file_name(bucket, key)
    return ngx.var.kept_directory .. "/" .. bucket .. "/" .. ngx.escape_uri(key)
end

-- All parts of an upload but the last are as long as the first, so once that one is known, the
-- others are written where they belong; those that come before it wait in files of their own.
local function upload_name(id)
    return ngx.var.kept_directory .. "/parts/" .. id
end

local function part_name(id, number)
    return upload_name(id) .. "." .. number
end

local function touch(path)
    assert(io.open(path, "ab")):close()
end

local function is_kept(bucket)
    return bucket:sub(1, 4) == "kept"
end

-- Read the whole body; write it to `path`, from `offset` on, if there is one. Returns its length.
local function take_body(path, offset)
    local headers = ngx.req.get_headers()
    if (headers["content-encoding"] or ""):find("aws-chunked", 1, true) then
        return nil, "aws-chunked bodies are not understood"
    end
    local left = tonumber(headers["content-length"])
    if not left then
        return nil, "a body without a length is not understood"
    end
    local file
    if path then
        file = assert(io.open(path, offset and "r+b" or "wb"))
        file:seek("set", offset or 0)
    end
    local size = left
    if left > 0 then
        local socket, problem = ngx.req.socket()
        if not socket then
            return nil, problem
        end
        socket:settimeout(60000)
        while left > 0 do
            local piece, trouble = socket:receiveany(math.min(left, PIECE))
            if not piece then
                return nil, trouble
            end
            left = left - #piece
            if file then
                file:write(piece)
            end
        end
    end
    if file then
        file:close()
    end
    return size
end

-- Every header that the client wants to be given back, one a line.
local function metadata()
    local lines = {}
    for name, value in pairs(ngx.req.get_headers()) do
        if name:sub(1, #METADATA) == METADATA then
            lines[#lines + 1] = name .. ":" .. tostring(value)
        end
    end
    return table.concat(lines, "\n")
end

local function put(path, size, etag, about)
    objects:set(path, size .. "\t" .. etag .. "\t" .. ngx.time() .. "\t" .. about)
end

local function find(path)
    local value = objects:get(path)
    if not value then
        return nil
    end
    local size, etag, time, about = value:match("^(%d+)\t(%S+)\t(%d+)\t(.*)$")
    return { size = tonumber(size), etag = etag, time = tonumber(time), about = about }
end

local function taken(path)
    return ngx.ctx.if_none_match == "*" and objects:get(path)
end

local function put_object(bucket, key)
    local path = bucket .. "/" .. key
    local size, problem = take_body(is_kept(bucket) and file_name(bucket, key) or nil)
    if not size then
        return refuse(501, problem)
    end
    if taken(path) then
        return refuse(412, "PreconditionFailed")
    end
    local etag = ngx.md5(path .. ngx.now())
    put(path, size, etag, metadata())
    return answer(200, nil, { ETag = '"' .. etag .. '"' })
end

local function create_upload(bucket, key)
    local id = ngx.md5(bucket .. key .. ngx.now() .. math.random() .. ngx.worker.pid())
    uploads:set(id, metadata())
    if is_kept(bucket) then
        touch(upload_name(id))
    end
    local headers = {}
    for _, name in ipairs({ "x-amz-checksum-algorithm", "x-amz-checksum-type" }) do
        headers[name] = ngx.req.get_headers()[name]
    end
    return answer(200, "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>" .. bucket ..
        "</Bucket><Key>" .. escaped(key) .. "</Key><UploadId>" .. id ..
        "</UploadId></InitiateMultipartUploadResult>", headers)
end

local function upload_part(bucket, id, number)
    local path, offset
    if is_kept(bucket) then
        if number == "1" then
            uploads:set(id .. "/length", tonumber(ngx.var.http_content_length))
        end
        local length = uploads:get(id .. "/length")
        offset = length and (tonumber(number) - 1) * length
        path = offset and upload_name(id) or part_name(id, number)
    end
    local size, problem = take_body(path, offset)
    if not size then
        return refuse(501, problem)
    end
    if not uploads:get(id) then
        return refuse(404, "NoSuchUpload")
    end
    local etag = ngx.md5(id .. number .. ngx.now())
    uploads:set(id .. "/" .. number, size .. "\t" .. (offset or "waits"))
    return answer(200, nil, { ETag = '"' .. etag .. '"' })
end

-- Copy a part that came too early to where it belongs.
local function insert(target, offset, path)
    local source = assert(io.open(path, "rb"))
    target:seek("set", offset)
    while true do
        local piece = source:read(PIECE)
        if not piece then
            break
        end
        target:write(piece)
    end
    source:close()
    os.remove(path)
end

local function complete_upload(bucket, key, id)
    local path = bucket .. "/" .. key
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    local about = uploads:get(id)
    if not about then
        return refuse(404, "NoSuchUpload")
    end
    if taken(path) then
        return refuse(412, "PreconditionFailed")
    end
    local target
    if is_kept(bucket) then
        target = assert(io.open(upload_name(id), "r+b"))
    end
    local total = 0
    for number in body:gmatch("<PartNumber>(%d+)</PartNumber>") do
        local part = uploads:get(id .. "/" .. number)
        if not part then
            return refuse(400, "InvalidPart")
        end
        local size, offset = part:match("^(%d+)\t(%w+)$")
        if target and offset == "waits" then
            insert(target, total, part_name(id, number))
        elseif target and tonumber(offset) ~= total then
            return refuse(400, "InvalidPartOrder")
        end
        total = total + tonumber(size)
        uploads:delete(id .. "/" .. number)
    end
    if target then
        target:close()
        assert(os.rename(upload_name(id), file_name(bucket, key)))
    end
    uploads:delete(id)
    local etag = ngx.md5(id) .. "-1"
    put(path, total, etag, about)
    return answer(200, "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Bucket>" .. bucket ..
        "</Bucket><Key>" .. escaped(key) .. "</Key><ETag>&quot;" .. etag ..
        "&quot;</ETag></CompleteMultipartUploadResult>")
end

-- Parts that wait stay until the endpoint ends: its whole directory goes then.
local function abort_upload(id)
    uploads:delete(id)
    os.remove(upload_name(id))
    return answer(204)
end

local function describe(found)
    ngx.header["Last-Modified"] = ngx.http_time(found.time)
    ngx.header["ETag"] = '"' .. found.etag .. '"'
    ngx.header["Accept-Ranges"] = "bytes"
    for name, value in found.about:gmatch("([^\n:]+):([^\n]*)") do
        ngx.header[name] = value
    end
end

local function get_object(bucket, key)
    local found = find(bucket .. "/" .. key)
    if not found then
        return refuse(404, "NoSuchKey")
    end
    if is_kept(bucket) then
        ngx.var.kept_file = file_name(bucket, key)
        return ngx.exec("@kept")
    end
    if ngx.req.get_method() ~= "HEAD" then
        return refuse(410, "Dropped")
    end
    describe(found)
    ngx.header.content_length = found.size
    return ngx.exit(ngx.OK)
end

-- In the header filter of kept objects: nginx has set ETag, times and lengths by itself.
function M.add_metadata()
    local found = find(ngx.var.object_path)
    for name, value in (found and found.about or ""):gmatch("([^\n:]+):([^\n]*)") do
        ngx.header[name] = value
    end
end

local function list(bucket, arguments)
    local prefix = bucket .. "/" .. (arguments.prefix or "")
    local names = {}
    for _, path in ipairs(objects:get_keys(0)) do
        if path:sub(1, #prefix) == prefix then
            names[#names + 1] = path
        end
    end
    table.sort(names)
    local lines = {}
    for _, path in ipairs(names) do
        local found = find(path)
        if found then
            lines[#lines + 1] = "<Contents><Key>" .. escaped(path:sub(#bucket + 2)) ..
                "</Key><LastModified>" .. os.date("!%Y-%m-%dT%H:%M:%S.000Z", found.time) ..
                "</LastModified><ETag>&quot;" .. found.etag .. "&quot;</ETag><Size>" ..
                found.size .. "</Size><StorageClass>STANDARD</StorageClass></Contents>"
        end
    end
    return answer(200, "<?xml version=\"1.0\"?><ListBucketResult><Name>" .. bucket ..
        "</Name><Prefix>" .. escaped(arguments.prefix or "") .. "</Prefix><KeyCount>" .. #lines ..
        "</KeyCount><MaxKeys>" .. math.max(1000, #lines) ..
        "</MaxKeys><IsTruncated>false</IsTruncated>" .. table.concat(lines) ..
        "</ListBucketResult>")
end

local function delete_object(bucket, key)
    objects:delete(bucket .. "/" .. key)
    if is_kept(bucket) then
        os.remove(file_name(bucket, key))
    end
    return answer(204)
end

function M.handle()
    local method = ngx.req.get_method()
    local bucket, key = ngx.var.uri:match("^/([^/]+)/?(.*)$")
    local arguments = ngx.req.get_uri_args()
    local id, number = arguments.uploadId, arguments.partNumber
    if method == "PUT" or method == "POST" then
        -- Otherwise nginx would answer 304 to any reply of ours that has an ETag.
        ngx.ctx.if_none_match = ngx.req.get_headers()["if-none-match"]
        ngx.req.clear_header("If-None-Match")
    end
    if not bucket then
        return answer(200, "<?xml version=\"1.0\"?><ListAllMyBucketsResult><Buckets/>" ..
            "</ListAllMyBucketsResult>")
    elseif key == "" and method == "GET" then
        if arguments.location then
            return answer(200, "<?xml version=\"1.0\"?><LocationConstraint/>")
        end
        return list(bucket, arguments)
    elseif key == "" then
        return answer(200)
    elseif ngx.req.get_headers()["x-amz-copy-source"] then
        return refuse(501, "NotImplemented")
    elseif method == "PUT" and id then
        return upload_part(bucket, id, number)
    elseif method == "PUT" then
        return put_object(bucket, key)
    elseif method == "POST" and arguments.uploads then
        return create_upload(bucket, key)
    elseif method == "POST" and id then
        return complete_upload(bucket, key, id)
    elseif method == "DELETE" and id then
        return abort_upload(id)
    elseif method == "DELETE" then
        return delete_object(bucket, key)
    elseif method == "GET" or method == "HEAD" then
        return get_object(bucket, key)
    end
    return refuse(501, "NotImplemented")
end

return M
